"""The keywords of Flower's FedAvg: what they are here, or why they are not taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from surefoot._numerics.checks import check_number

TAKEN = (
    "fraction_train", "weighted_by_key", "arrayrecord_key", "configrecord_key", "train_metrics_aggr_fn",
)  # fmt: skip
INSTEAD = {
    "min_train_nodes": "a round needs min_nodes of its partitions: give min_nodes",
    "min_available_nodes": "round 1 waits for all num_partitions, later rounds for min_nodes: give min_nodes",
    "fraction_evaluate": "the global state is evaluated on the server: give evaluate_fn to start()",
    "min_evaluate_nodes": "the global state is evaluated on the server: give evaluate_fn to start()",
    "evaluate_metrics_aggr_fn": "the global state is evaluated on the server: give evaluate_fn to start()",
}  # fmt: skip
# Asking for no evaluation on clients is asking for what happens.
NOTHING = {"fraction_evaluate": 0, "min_evaluate_nodes": 0, "evaluate_metrics_aggr_fn": None}


def fed_avg_settings(given: Mapping[str, Any], fraction: float) -> dict[str, Any]:
    """What goes to FedAvg's constructor, with `fraction_train` decided.

    Raises
    ------
    ValueError
        A keyword of FedAvg that has no meaning here, with what to give instead; or two fractions.
    TypeError
        A keyword that FedAvg has not either.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name in TAKEN:
            found[name] = value
        elif name not in INSTEAD:
            raise TypeError(f"DeterministicFedAvg has no argument {name!r}, and FedAvg has none")
        elif name not in NOTHING or value != NOTHING[name]:
            raise ValueError(f"{name} is not taken, got {value!r}: {INSTEAD[name]}")
    if "fraction_train" in found:
        check_number("fraction_train", found["fraction_train"], above=0, most=1)
    train = found.setdefault("fraction_train", fraction)
    if fraction not in (1.0, train):
        raise ValueError(
            f"fraction and fraction_train are the same setting, got {fraction!r} and {train!r}; give one"
        )
    for name in ("weighted_by_key", "arrayrecord_key", "configrecord_key"):
        if name in found and not (isinstance(found[name], str) and found[name]):
            raise ValueError(f"{name} must be a name, got {found[name]!r}")
    return found
