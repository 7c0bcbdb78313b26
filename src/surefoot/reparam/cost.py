"""What a mode costs: parameters, bytes on the wire, activations kept for backward, time of a step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._showing import showing
from surefoot.record import Record
from surefoot.reparam.merging import blocks

Step = Callable[[], object]


@showing
@dataclass(frozen=True)
class Cost:
    """Of one mode; `seconds` is the least thread CPU time of a training step."""

    mode: str
    parameters: int
    bytes_per_round: int
    saved_bytes: int
    seconds: float


def state_bytes(model: nn.Module) -> int:
    """Bytes of the state_dict: one way, one client, one round."""
    return sum(v.numel() * v.element_size() for v in model.state_dict().values())


def saved_bytes(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> int:
    """Bytes of activations that a forward pass keeps for backward, parameters and buffers apart."""
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: dict[int, int] = {}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)  # alive, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss(model)
    return sum(seen.values())


@checked
def cost_report(
    models: Mapping[str, tuple[nn.Module, torch.optim.Optimizer]],
    loss: Callable[[nn.Module], Tensor],
    *,
    rounds: int = 5,
    record: Record | None = None,
    seed: int = 0,
) -> list[Cost]:
    """Measure modes beside each other, their steps interleaved: the machine may be busy (G5).

    Parameters
    ----------
    models
        {mode: (model, its optimiser)}.
    loss
        loss(model) -> the loss of one batch.
    rounds
        Steps of each mode, one more before them to allocate.
    record, seed
        Where to write columns "parameters: MODE", "bytes: MODE", "saved: MODE", "seconds: MODE", and as
        facts of each mode the blocks that its model has.

    Returns
    -------
    list[Cost]
        One a mode.
    """

    def step_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
        def step() -> None:
            optimizer.zero_grad()
            loss(model).backward()  # type: ignore[no-untyped-call]
            optimizer.step()

        return step

    check_number("rounds", rounds, least=1, whole=True)
    steps = {mode: step_of(*pair) for mode, pair in models.items()}
    best = dict.fromkeys(models, float("inf"))
    for k in range(rounds + 1):
        for mode, step in steps.items():
            started = time.thread_time()
            step()
            spent = time.thread_time() - started
            if k:  # the first one allocates
                best[mode] = min(best[mode], spent)
    costs = [
        Cost(
            mode,
            sum(p.numel() for p in model.parameters()),
            state_bytes(model),
            saved_bytes(model, loss),
            best[mode],
        )
        for mode, (model, _) in models.items()
    ]
    for cost in costs if record is not None else ():
        assert record is not None
        values = {
            "parameters": cost.parameters, "bytes": cost.bytes_per_round, "saved": cost.saved_bytes,
            "seconds": cost.seconds,
        }  # fmt: skip
        record.update(seed, 0, {f"{k}: {cost.mode}": v for k, v in values.items()})
        for mode in sorted({b.mode for _, b in blocks(models[cost.mode][0])}):
            record.note(seed, cost.mode, blocks=mode)
    return costs
