"""What a federation's server knows after a round, in one file from which a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from surefoot._sealed.tensors import read_tensors, write_tensors
from surefoot.errors import FileFormatError, SurefootError
from surefoot.federated.rounds import FederationHistory
from surefoot.federated.server_rule import ServerRule

if TYPE_CHECKING:
    from surefoot.federated.strategy import DeterministicFedAvg

FORMAT = "surefoot federation 1"
# What may differ between the run that was killed and the one that goes on.
FREE = frozenset(
    {"num-server-rounds", "out", "checkpoint", "resume", "node-timeout", "round-timeout"}
)
STATE, FIRST, SECOND = "state/", "first moment/", "second moment/"


def why_not(strategy: object, around: bool) -> str:
    """Why a run of a strategy cannot go on from a round; nothing where it can.

    Parameters
    ----------
    strategy
        A `DeterministicFedAvg`.
    around
        Whether it is inside another strategy.
    """
    from surefoot.federated.strategy import DeterministicFedAvg

    if around:
        return "a strategy around it has a state of its own"
    name = type(strategy).__name__
    own = ("combine", "expected", "configure_train", "aggregate_train")
    if any(getattr(type(strategy), m) is not getattr(DeterministicFedAvg, m) for m in own):
        return f"{name} keeps more than the arrays of a round"
    if getattr(strategy, "secret_draw", False):
        return "who took part is secret, and a checkpoint would hold it"
    rule = type(getattr(strategy, "rule", None))
    return "" if rule is ServerRule else f"{rule.__name__} may keep a state of its own"


def save_round(
    path: str | Path, strategy: DeterministicFedAvg, done: int, config: Mapping[str, Any]
) -> None:
    """Write the server's state after a round, in place of that of the round before.

    Parameters
    ----------
    path
        The file.
    strategy
        After the round.
    done
        How many rounds are done.
    config
        Of the run; a run that goes on must have the same.

    Raises
    ------
    surefoot.errors.WriteError
        A full disk, or a folder that may not be written to.
    """
    said = {
        "format": FORMAT, "done": done, "config": _fixed(config),
        "history": strategy.history.to_state(), "declared": strategy.declared.to_dict(),
    }  # fmt: skip
    tensors = {STATE + name: t for name, t in strategy.state.items()}
    tensors |= {FIRST + name: t for name, t in strategy.rule.buffers.items()}
    tensors |= {SECOND + name: t for name, t in strategy.rule.squares.items()}
    write_tensors(path, tensors, {"federation": json.dumps(said)})


def load_round(path: str | Path, strategy: DeterministicFedAvg, config: Mapping[str, Any]) -> int:
    """Bring a strategy to where a run was killed.

    Parameters
    ----------
    path
        What `save_round` wrote.
    strategy
        A new one, of the same settings.
    config
        Of the run that goes on.

    Returns
    -------
    int
        How many rounds are done.

    Raises
    ------
    FileFormatError
        The file is damaged, or no such file.
    SurefootError
        It is of a run with other settings, or clients kept something that is lost.
    """
    found = read_tensors(path)
    try:
        if not found.sealed:
            raise ValueError("it carries no digest")
        said = json.loads(found.words["federation"])
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']!r}, not {FORMAT!r}")
        before, done = dict(said["config"]), int(said["done"])
        history = FederationHistory.from_state(said["history"], strategy.history.record)
        history.theorems = strategy.theorems
        declared = {int(k): float(v) for k, v in said["declared"].items()}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileFormatError(f"{path} is no state of a federation: {error}") from error
    now = _fixed(config)
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise SurefootError(
                f"{path} is of a run with {key} = {before.get(key)!r}, and this one has {now.get(key)!r}: "
                "give the same settings, or start anew without resume"
            )
    if "memory" in history.record.facts:
        raise SurefootError(
            f"the run of {path} cannot go on: its clients kept something between rounds (visit.memory), "
            "which was lost with them; start anew without resume"
        )
    parts: dict[str, dict[str, torch.Tensor]] = {STATE: {}, FIRST: {}, SECOND: {}}
    for name, tensor in found.tensors.items():
        kind = next(k for k in parts if name.startswith(k))
        parts[kind][name.removeprefix(kind)] = tensor
    strategy.state = parts[STATE]
    strategy.rule.buffers, strategy.rule.squares = parts[FIRST], parts[SECOND]
    strategy.declared.first = declared
    strategy.history, strategy.rounds_done = history, done
    return done


def _fixed(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in sorted(config.items()) if k not in FREE}
