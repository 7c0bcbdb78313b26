"""What the strategy may be told, and what Flower's `start` may: checked before anybody has sent anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from surefoot.errors import need
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.prototypes.server_training import check_options

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import ArrayRecord

    from surefoot.federated.records import fingerprint

PRIVATE_STEPS = 1000
"""Where the uploads are private: nothing may be tuned on."""
IN_ORDER = ("num_rounds", "timeout", "train_config", "evaluate_config", "evaluate_fn")
"""Arguments of Flower's `start` behind the arrays."""


def training_options(
    dp: GaussianRelease | None,
    epochs: int | None,
    steps: int | None,
    early_stop: bool,
    seed: int,
    **more: Any,
) -> dict[str, Any]:
    """Options of `train_global_adapter`, where epochs and steps are left open by what the uploads are.

    Parameters
    ----------
    dp
        The release of the uploads.
    epochs, steps, early_stop, seed, **more
        As in `train_global_adapter`; None: not given.

    Raises
    ------
    ValueError
        An option outside its range, or options that exclude each other.
    """
    private = dp is not None and more["solver"] == "adamw" and steps is None and epochs is None
    found = {
        **more, "epochs": epochs, "steps": PRIVATE_STEPS if private else steps, "early_stop": early_stop,
    }  # fmt: skip
    check_options(**found)
    return found | {"seed": seed}


def check_start(
    initial: ArrayRecord,
    own: ArrayRecord,
    shots: int,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> int:
    """The number of rounds, where `start` was told nothing that would not be read.

    Parameters
    ----------
    initial, own
        Arrays that were given, and those that training starts from.
    shots
        Of the second round; 0: there is none.
    args, kwargs
        The other arguments of `start`.

    Raises
    ------
    ValueError
        Other arrays, a configuration, or another number of rounds.
    """
    given = dict(kwargs) | dict(zip(IN_ORDER, args, strict=False))
    for name in ("train_config", "evaluate_config"):
        if given.get(name):
            raise ValueError(
                f"{name} is not read: give {sorted(map(str, given[name]))} to MPFTStrategy itself"
            )
    if fingerprint(initial) != fingerprint(own):
        raise ValueError(
            "initial_arrays must be MPFTStrategy.initial_arrays(): training starts from a fresh adapter "
            "of its seed, and another one would not be used"
        )
    wanted = 2 if shots else 1
    if given.get("num_rounds", wanted) != wanted:
        raise ValueError(
            f"num_rounds must be {wanted} with adapt_shots = {shots}, got {given['num_rounds']}: MPFT "
            "uploads once; a second round adapts at the sites"
        )
    return wanted
