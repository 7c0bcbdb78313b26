"""What a search fits: numbers or classes."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.checks import check_choice, check_numbers

Task = Literal["regression", "classification"]
TASKS = ("regression", "classification")


class Data(NamedTuple):
    """A table: x (n, features) and y, (n, outputs) numbers or (n,) classes; outputs of a network."""

    x: Tensor
    y: Tensor
    task: Task
    n_out: int


def table(X: Any, y: Any, task: Task) -> Data:
    """A table as float32 tensors.

    Parameters
    ----------
    X : (n, features) array or tensor
        Standardised columns: float32 loses a small spread beside a large mean.
    y : (n,) or (n, outputs) array or tensor
        Standardised numbers; or classes 0..C-1, for which networks have C logits, one where C is 2.
    task : "regression" or "classification"
        What y is.

    Raises
    ------
    ValueError
        A shape, a number or a class is wrong; the message names the argument.
    """
    check_choice("task", task, TASKS)
    found = torch.from_numpy(check_numbers("X", X, ndim=2)).float()
    target = torch.from_numpy(np.ascontiguousarray(check_numbers("y", y)))
    if target.ndim not in (1, 2) or len(target) != len(found):
        raise ValueError(
            f"y must be ({len(found)},) or ({len(found)}, outputs), got {tuple(target.shape)}"
        )
    if not found.isfinite().all():
        raise ValueError("X must fit float32: standardise its columns")
    if task == "regression":
        if not target.float().isfinite().all():
            raise ValueError("y must fit float32: standardise its columns")
        target = target.float().reshape(len(found), -1)
        return Data(found, target, task, target.shape[1])
    if target.ndim != 1 or (target != target.round()).any() or target.min() < 0:
        raise ValueError("y must have classes 0..C-1, one a row")
    classes = int(target.max()) + 1
    return Data(found, target.long(), task, 1 if classes <= 2 else classes)


def task_losses(f: Float[Tensor, "R n K"], y: Tensor, task: Task) -> Float[Tensor, " R"]:
    """Mean squared error, or cross-entropy, of every network.

    Parameters
    ----------
    f : (R, n, K) tensor
        Outputs; logits of classes, one logit where there are two.
    y : (n, K) or (n,) tensor
        As `table` gives it.
    task : "regression" or "classification"
        What y is.
    """
    if task == "regression":
        return (f - y).square().mean((1, 2))
    if f.shape[-1] == 1:
        wanted = y.to(f.dtype).expand(f.shape[:2])
        return F.binary_cross_entropy_with_logits(f[..., 0], wanted, reduction="none").mean(1)
    flat = F.cross_entropy(f.flatten(0, 1), y.repeat(len(f)), reduction="none")
    return flat.view(f.shape[:2]).mean(1)
