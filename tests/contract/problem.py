"""A small regression that every optimizer of the contract trains, and how it trains it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.contract.members import Member
from torch import Tensor, nn

ROWS = 12


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """Two layers, the same ones each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).to(dtype)


def loss_of(
    model: nn.Module, rows: slice = slice(0, ROWS), dtype: torch.dtype = torch.float64
) -> Callable[[], Tensor]:
    """The loss of some rows."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 4, generator=generator, dtype=torch.float64).to(dtype)[rows]
    y = torch.randn(ROWS, 3, generator=generator, dtype=torch.float64).to(dtype)[rows]
    return lambda: (model(x) - y).square().mean()


def train(member: Member, optimizer: Any, loss: Callable[[], Any], steps: int = 1) -> list[float]:
    """Some steps, as the method wants them; the losses that were seen."""
    seen = []
    for _ in range(steps):
        if member.needs == "losses":
            seen.append(float(optimizer.step(loss)))
            continue
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        seen.append(float(value.detach()))
    return seen


def settle(optimizer: Any) -> None:
    """Bring what is kept beside the weights into them."""
    if hasattr(optimizer, "flush"):
        optimizer.flush()


def values(given: Any) -> list[Tensor]:
    """Copies of parameters, or of a model's."""
    listed = given.parameters() if isinstance(given, nn.Module) else given
    return [p.detach().clone() for p in listed]


def same(a: Any, b: Any) -> bool:
    """Bit by bit."""
    return all(torch.equal(x, y) for x, y in zip(values(a), values(b), strict=True))


def alike(a: Any, b: Any, atol: float) -> None:
    """Up to rounding."""
    for x, y in zip(values(a), values(b), strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol)


@contextmanager
def known_warnings(member: Member) -> Iterator[None]:
    """What the member is known to warn of; that it does has a test of its own."""
    with warnings.catch_warnings():
        for says in member.warns.values():
            warnings.filterwarnings("ignore", says)
        yield


@contextmanager
def refused(member: Member, check: str) -> Iterator[None]:
    """A check that must raise the member's sentence."""
    refusal = member.refuses[check]
    with known_warnings(member), pytest.raises(refusal.error, match=refusal.says):
        yield


def without_multipliers(optimizer: Any) -> None:
    """Where gradients carry multipliers: from now on they carry none."""
    for state in optimizer.state.values():
        for name in ("grad_mult", "branch_scales"):
            if name in state:
                del state[name]
