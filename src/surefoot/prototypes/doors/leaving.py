"""Before an upload leaves its site: the folder, the file that was inspected, the ledger."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Mapping

from surefoot.errors import SurefootError, need
from surefoot.prototypes._client.site import Site
from surefoot.prototypes.doors.site_settings import OF_NO_DELTA, Config
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.ledger import Ledger
from surefoot.prototypes.prototype_set import PrototypeSet

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import ConfigRecord, Context

LEDGER = "surefoot-ledger"
MADE_WITH = ("min-cluster", "seed")
"""Of what a run asks for, what an upload does not say of itself."""


def site_of(config: Config, partition: int, count: int) -> Site | None:
    """The folder of this site; None where it named none."""
    folder = str(config.get("site-dir", "") or "")
    dealt = None if config["own-data"] else (count, int(config.get("seed", 0)))
    return Site(folder, partition, dealt) if folder else None


def inspected(
    site: Site | None,
    dry: bool,
    asked: Mapping[str, object],
    release: GaussianRelease | None,
    encoder_id: str,
    records: str,
) -> PrototypeSet:
    """The upload that was written before, to the last bit.

    Parameters
    ----------
    site, dry
        Its folder, and whether nothing is sent.
    asked, release, encoder_id
        What this run asks for.
    records
        Hash of the records that it would be made of.

    Raises
    ------
    SurefootError
        There is none, or it is not what this run asks for.
    """
    if site is None:
        raise SurefootError("send-inspected sends the upload in site-dir: name that folder too")
    if dry:
        raise SurefootError("dry-run sends nothing and send-inspected sends: give one of the two")
    protos, noted = site.kept()
    wanted = (asked["method"], asked["ratio"], release, encoder_id)
    found = (protos.method, protos.ratio, protos.release, protos.encoder_id)
    if found != wanted:
        raise SurefootError(
            f"{site.upload} is {found}, the run asks for {wanted} (method, ratio, release, encoder); do the "
            "dry run again"
        )
    wanted_with = made_with(asked, records)
    if other := sorted(k for k, v in wanted_with.items() if noted.get(k) != v):
        raise SurefootError(
            f"{site.upload} was made with another {' and another '.join(other)} than this run asks for; do "
            "the dry run again (records: the file, the cut, or the order of the classes)"
        )
    return protos


def made_with(asked: Mapping[str, object], records: str) -> dict[str, object]:
    """What is noted beside an upload, so that it is sent to no other run than it was made for."""
    return {name: asked[name] for name in MADE_WITH} | {"records": records}


def charge(
    context: Context, site: Site | None, release: GaussianRelease | None, config: Config
) -> None:
    """Enter what leaves into the state of the node, and into the file of the site, before it leaves.

    Without a limit of its own a site releases once: the limit is the epsilon of the release, at its delta. A
    limit is stated at the site's delta, not at the run's. What leaves without noise is entered as infinite:
    nothing can be promised of those records afterwards.

    Raises
    ------
    RuntimeError
        It would exceed the limit.
    """
    limit, delta = config["max-epsilon"], config["max-delta"] or OF_NO_DELTA
    kept = context.state.get(LEDGER)
    before = Ledger.from_record(kept).mu_squared if isinstance(kept, ConfigRecord) else 0.0
    if release is not None and site is None and kept is None:
        logging.getLogger("flwr").warning(
            "no site-dir: what is released is counted in the state of this node alone, and another run may "
            "begin at 0; name a folder that outlives it"
        )
    with contextlib.nullcontext() if site is None else site.alone():
        before = before if site is None else max(before, site.spent())
        if release is None:
            ledger = Ledger(math.inf, OF_NO_DELTA, math.inf)
        else:
            if limit is None:
                limit, delta = release.epsilon, release.delta
            ledger = Ledger(limit, delta, before)
            ledger.charge(release)
        if site is not None:
            site.write_spent(ledger.mu_squared, ledger.spent, ledger.delta)
    context.state[LEDGER] = ledger.to_record()
