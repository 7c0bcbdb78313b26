"""Keys of a run and of a node of `apps/mpft`: who reads which."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from surefoot.errors import SurefootError

COMMON = frozenset(
    {"num-server-rounds", "num-partitions", "seed", "out", "node-timeout", "round-timeout"}
)
OF_DATA = frozenset({"data", "data-path", "head-path", "scale", "held-out"})
OF_FOLDER = ("site-dir", "dry-run", "send-inspected")
LIMITS = ("max-epsilon", "max-delta")
OF_METHOD = frozenset(
    {"method", "ratio", "min-cluster", "sampler", "epsilon", "delta", "clip", "release", "evaluate",
     "min-clients", "adapt-shots", "kd-weight", "adapt-epochs"}
)  # fmt: skip
OF_TRAINING = frozenset({"lr", "epochs", "steps", "batch-size", "solver", "residual"})
KEYS = COMMON | OF_DATA | OF_METHOD | OF_TRAINING | {*OF_FOLDER, *LIMITS}
FIRST_AT_NODE = ("data-path", *OF_FOLDER)
"""Keys of a node that stand before those of the run."""
OF_NODE = frozenset({"partition-id", "num-partitions", *FIRST_AT_NODE, *LIMITS})


def refuse_unread(node: Iterable[str]) -> None:
    """Refuse keys of a node that the site thinks are read there: those of the run, and misspelt ones.

    Keys that look like none of these are for other apps of the same node.

    Raises
    ------
    SurefootError
        The key is named: a limit that is not read is no limit.
    """
    for key in set(map(str, node)) - OF_NODE:
        words = key.lower().replace("_", "-")
        near = difflib.get_close_matches(words, OF_NODE, 1, 0.7)
        if not near and any(word.startswith("eps") for word in words.split("-")):
            near = ["max-epsilon"]
        if key in KEYS or near:
            meant = f"; did you mean {near[0]}?" if near else ", as it is one of the run."
            raise SurefootError(
                f"{key} in the node's configuration is read by nobody{meant} A node has "
                f"{', '.join(sorted(OF_NODE))}"
            )
