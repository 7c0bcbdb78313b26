"""The ClientApp of MPFT: one upload, what is kept of it at the site, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surefoot._numerics.arguments import checked
from surefoot.errors import SurefootError, need
from surefoot.prototypes._client.threads import one_thread
from surefoot.prototypes.doors import site_steps
from surefoot.prototypes.doors.site_settings import settings as settings_of
from surefoot.prototypes.task import MakePrototypeTask

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.clientapp.typing import Mod

    from surefoot.federated.run_config import node_of

WATCHING = frozenset({"message_size_mod", "arrays_size_mod"})
"""Mods that look and do not touch."""


@checked
def make_client_app(
    task: MakePrototypeTask,
    settings: Mapping[str, Any] | None = None,
    mods: Sequence[Mod] = (),
) -> ClientApp:
    """A ClientApp that uploads the prototypes of its site once.

    What the site itself decides stands in its node's configuration, before the run's: `data-path` (its own
    records), `site-dir` (a folder for what leaves, what was spent and what comes back), `dry-run` (write the
    upload there and send nothing), `send-inspected` (send that very file), `max-epsilon` (release nothing
    beyond it, and nothing without noise).

    Parameters
    ----------
    task
        task(configuration) -> a `PrototypeTask`; the configuration has "own-data" where the node names a
        `data-path` of its own.
    settings
        Defaults below the run's configuration.
    mods
        Flower's mods that only look (message_size_mod, arrays_size_mod).

    Raises
    ------
    ValueError
        A mod that may change a reply: LocalDpMod and the clipping mods are for updates of a model, which
        nobody sends here.
    """
    for mod in mods:
        name = getattr(mod, "__name__", type(mod).__name__)
        if name not in WATCHING:
            raise ValueError(
                f"mods must be of {', '.join(sorted(WATCHING))}, got {name}: mods that clip or add noise, as "
                "LocalDpMod, work on the update of a model whose keys were sent, and a reply here has other "
                "ones; privacy is the run's epsilon, delta and clip, with an exact accounting"
            )
    app = ClientApp()
    defaults = dict(settings or {})

    @app.query()
    def query(message: Message, context: Context) -> Message:
        record = MetricRecord({"partition-id": node_of(context)[0]})
        return Message(RecordDict({"metrics": record}), reply_to=message)

    @app.train("prototypes", mods=list(mods))
    def prototypes(message: Message, context: Context) -> Message:
        with one_thread():
            return site_steps.upload(message, context, settings_of(context, defaults), task)

    @app.train("adapt", mods=list(mods))
    def adapt(message: Message, context: Context) -> Message:
        with one_thread():
            return site_steps.adapt(message, context, settings_of(context, defaults), task)

    @app.evaluate(mods=list(mods))
    def evaluate(message: Message, context: Context) -> Message:
        with one_thread():
            return site_steps.receive(message, context, settings_of(context, defaults), task)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        raise SurefootError(
            "this client uploads prototypes, asked for by MPFTStrategy; it trains no model for a strategy "
            "that averages"
        )

    return app
