"""How many terms a loss of transformers averages over: what a micro-batch weighs in its batch.

A model's loss is a mean over its targets, so a batch is the mean of its micro-batches weighted by their
targets. Which labels are targets is asked of the loss itself where names do not tell: the Trainer's own count
knows the shift of causal losses by `loss_type`, which some causal models (GPT-2) do not have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

IGNORED = -100
SPANS = ("start_positions", "end_positions")


def ignored_label(config: Any, kind: str) -> int:
    """The label that the loss leaves out."""
    if "Segmentation" in kind:
        return int(getattr(config, "semantic_loss_ignore_index", IGNORED))
    return IGNORED


def is_regression(config: Any, kind: str) -> bool:
    """Whether every label is a target, whatever its value."""
    problem = getattr(config, "problem_type", None)
    if problem is not None:
        return bool(problem == "regression")
    return "Classification" in kind and getattr(config, "num_labels", None) == 1


def rows(inputs: Mapping[str, Any]) -> float:
    """Examples in a micro-batch."""
    for each in inputs.values():
        if isinstance(each, Tensor) and each.ndim:
            return float(each.shape[0])
        if isinstance(each, (list, tuple)):
            return float(len(each))
    return 1.0


def spans(inputs: Mapping[str, Any]) -> float:
    """Answers within their texts: positions past the end are left out."""
    ids = inputs.get("input_ids", inputs.get("inputs_embeds"))
    length = math.inf if not isinstance(ids, Tensor) else ids.shape[1]
    found = [float((inputs[name] < length).sum()) for name in SPANS]
    return sum(found) / len(found)


class Targets:
    """Counts the targets of micro-batches for one model.

    Parameters
    ----------
    config, kind
        The model's configuration and the name of its class.
    """

    def __init__(self, config: Any, kind: str) -> None:
        self.ignored = ignored_label(config, kind)
        self.everything = is_regression(config, kind)
        self.shifts: bool | None = None

    def both(self, inputs: Mapping[str, Any]) -> tuple[float, float]:
        """Targets without and with the shift of causal losses; equal where there is no question."""
        given, labels = inputs.get("shift_labels"), inputs.get("labels")
        if isinstance(given, Tensor):
            count = float((given != self.ignored).sum())
            return count, count
        if not isinstance(labels, Tensor):
            each = (
                spans(inputs)
                if all(isinstance(inputs.get(n), Tensor) for n in SPANS)
                else rows(inputs)
            )
            return each, each
        if labels.is_floating_point() or self.everything:
            return float(labels.numel()), float(labels.numel())
        there = labels != self.ignored
        count = float(there.sum())
        if labels.ndim != 2 or labels.shape[1] < 2:
            return count, count
        return count, float(there[:, 1:].sum())

    def count(self, inputs: Mapping[str, Any], shifts: bool | None) -> float:
        """Targets of a micro-batch."""
        plain, shifted = self.both(inputs)
        return shifted if shifts else plain

    def matters(self, batches: list[Mapping[str, Any]]) -> bool:
        """Whether the shift changes how micro-batches weigh against each other."""
        each = [self.both(inputs) for inputs in batches]
        wholes = [(plain, shifted) for plain, shifted in each if plain]
        if any(not shifted for _, shifted in wholes):
            return True
        first = wholes[0] if wholes else (1.0, 1.0)
        return any(a * first[1] != b * first[0] for a, b in wholes)


def reads_first_label(
    loss: Callable[[dict[str, Any]], Tensor], inputs: Mapping[str, Any], ignored: int
) -> bool:
    """Whether the label at position 0 is a target: the loss of one row in which it is the only one.

    Parameters
    ----------
    loss
        Of some inputs.
    inputs
        A micro-batch with labels of two dimensions.
    ignored
        The label that the loss leaves out.
    """
    size = inputs["labels"].shape[0]
    row = {
        k: v[:1] if isinstance(v, Tensor) and v.ndim and v.shape[0] == size else v
        for k, v in inputs.items()
    }
    labels = torch.full_like(row["labels"], ignored)
    labels[:, 0] = 0
    try:
        found = float(loss({**row, "labels": labels}))
    except (RuntimeError, IndexError, ValueError):
        # A loss that leaves nothing out cannot be asked; then every label counts.
        return True
    return math.isfinite(found) and found != 0
