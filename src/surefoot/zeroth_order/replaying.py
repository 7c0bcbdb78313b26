"""Fine-tuned weights again, from the base model and a log of kilobytes: no data and no forward pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from surefoot._numerics.arguments import checked
from surefoot.errors import FileFormatError, warn
from surefoot.zeroth_order._engine.digest import digest_of
from surefoot.zeroth_order._engine.engine import Engine
from surefoot.zeroth_order._engine.tensors import TrainedTensor, exact
from surefoot.zeroth_order.log import StepLog, computed_by
from surefoot.zeroth_order.optimizer import ZerothOrder


def _method(log: StepLog) -> type[ZerothOrder]:
    from surefoot.zeroth_order.lozo import LOZO
    from surefoot.zeroth_order.mezo import MeZO, ZOAdam

    found: dict[str, type[ZerothOrder]] = {c.method: c for c in (LOZO, MeZO, ZOAdam)}
    name = log.header["method"]
    if name not in found:
        raise FileFormatError(f"{log.name} is of method {name!r}; known are {', '.join(found)}")
    return found[name]


@checked
@torch.no_grad()
def replay(
    model: nn.Module,
    log: StepLog | str | Path,
    *,
    upto: int | None = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Repeat the logged steps on the base model, in place, and return it.

    Bit-exact with the same major and minor version of torch on the same kind of device, after `flush()`
    or at the end of a period, with `fold=False` up to rounding; in 16 bits in-place runs are repeated with
    every rounding of their perturbations.

    Parameters
    ----------
    model
        The base model, with the weights that the run started from.
    log
        The log, or its file.
    upto
        How many steps; all by default.
    device
        Where to move the model first.

    Raises
    ------
    FileFormatError
        If the log cannot be read.
    ValueError
        If the model is not the one that the log started from.

    Warns
    -----
    UserWarning
        The weights are not bitwise those that the run ended with, or the log is of the first format, which
        carries no checksum.
    """
    if not isinstance(log, StepLog):
        log = StepLog.load(log)
    if device is not None:
        model = model.to(device)
    try:
        engine = _rebuilt(model, log)
    except FileFormatError:
        raise
    except ValueError as error:
        raise ValueError(f"{error} ({log.name})") from error
    steps = log.steps()
    if upto is not None and not 0 <= upto <= len(steps):
        raise ValueError(f"upto must be between 0 and the log's {len(steps)} steps, got {upto}")
    for t, (scalars, rates, how, folds) in enumerate(steps[:upto]):
        changed = log.groups_at(t)
        for group, settings in zip(engine.groups, changed or [], strict=False):
            group["rank"], group["weight_decay"] = int(settings[0]), settings[1]
        engine.directions.begin_period(engine.rule.renewed)
        if engine.settings.mode == "inplace":
            _perturb(engine, *how)
        engine.advance(scalars, rates)
        for _ in range(folds):
            engine.flush()
    engine.flush()
    _compare(engine, log, len(steps) if upto is None else upto)
    for tensor in engine.tensors:
        if tensor.numberless:
            # Its hooks are the only place for what was kept apart.
            continue
        if not engine.settings.fold:
            _fold_kept(tensor)
        tensor.unhook()
    return model


def _compare(engine: Engine, log: StepLog, steps: int) -> None:
    """Say so where the run ended with other weights."""
    at, wanted = log.header.get("end") or (None, "")
    if at != steps or not engine.settings.fold or digest_of(engine.tensors).hex() == wanted:
        return
    then = {name: log.header.get(name) for name in ("torch", "device")}
    now = computed_by(engine.tensors)
    why = (
        "something else than its optimizer has written them, or another processor rounds otherwise"
        if then == now
        else f"they were computed by torch {then['torch']} on {then['device']}, here it is torch "
        f"{now['torch']} on {now['device']}, which may round otherwise"
    )
    warn(f"the weights are not bitwise those that the run ended with: {why}", UserWarning)


def _fold_kept(tensor: TrainedTensor) -> None:
    """Write the factors that a run with fold=False kept apart: nobody else would hold them."""
    if tensor.dense or tensor.storage == "written":
        # A tensor that is written holds them already.
        return
    out = tensor.matrix()
    for rows in tensor.row_blocks():
        moved = out[rows].to(exact(out.dtype))
        for a, v in tensor.factors():
            moved = torch.addmm(moved, a[rows], v.T)
        out[rows] = moved.to(out.dtype)


def _perturb(engine: Engine, micro_batches: int, fused: bool, fd_errors: int) -> None:
    """The writes of the evaluations: their rounding is part of the trajectory."""
    directions, settings = engine.directions, engine.settings
    for _ in range(fd_errors):
        for s in (1.0, -1.0, 0.5, -0.5):
            directions.place(0, s)
        directions.release()
    for _ in range(micro_batches):
        for i in range(settings.num_directions):
            directions.place(i, 1.0)
            if not settings.one_sided and not settings.leave_one_out:
                directions.place(i, -1.0)
        if not fused:
            directions.release()


def _rebuilt(model: nn.Module, log: StepLog) -> Engine:
    header = log.header
    names = dict(model.named_parameters())
    tensors = header["tensors"]
    missing = [name for name, _, _ in tensors if name not in names]
    if missing:
        raise ValueError(f"model has no parameter {missing[0]!r}, which the log trained")
    for name, shape, _ in tensors:
        if list(names[name].shape) != shape:
            raise ValueError(
                f"model has {name} of shape {list(names[name].shape)}, the log trained {shape}"
            )
    groups: list[dict[str, Any]] = []
    at = 0
    for g in header["groups"]:
        members = [names[name] for name, _, _ in tensors[at : at + g["count"]]]
        at += g["count"]
        settings = {k: g[k] for k in ("rank", "eps", "weight_decay")}
        groups.append({"params": members, "lr": 0.0, **settings})
    for p in (p for g in groups for p in g["params"]):
        p.requires_grad_(True)
    settings = {k: v for k, v in header["settings"].items() if v is not None and k != "c_clip"}
    try:
        engine = _method(log).from_settings(groups, settings, model).engine
    except TypeError as error:
        raise FileFormatError(f"{log.name} has settings of another method: {error}") from error
    found = digest_of(engine.tensors).hex()
    if found != header["base"]:
        raise ValueError(
            f"model is not the base of this log: the digest of its weights is {found[:12]}, "
            f"the log started from {header['base'][:12]}"
        )
    for tensor, storage in zip(engine.tensors, log.storage, strict=False):
        if tensor.storage != storage:
            tensor.unhook()
            tensor.storage = storage
    return engine
