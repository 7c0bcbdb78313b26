"""The part of a layer's state that no weight tells: its rule and its grid, as one row of numbers.

(G, k) = (5, 3) and (6, 2) have weights of the same shape.
"""

from __future__ import annotations

import torch
from jaxtyping import Float64
from torch import Tensor

from surefoot.kan._basis.edge import EdgeRule

NAMES = {
    "basis": ("bspline", "rbf", "chebyshev"),
    "base_activation": (None, "silu", "another function"),
    "out_of_grid": ("zero", "clamp", "linear"),
}
WORDS = ("basis", "grid_size", "spline_order", "base_activation", "out_of_grid")


def pack(
    rule: EdgeRule, other_base: bool, lo: Float64[Tensor, " in"], hi: Float64[Tensor, " in"]
) -> Float64[Tensor, " numbers"]:
    """The rule, then the ends of the grid; `other_base`: the base is a function outside the rule."""
    told = torch.tensor(_signature(rule, other_base), dtype=torch.float64, device=lo.device)
    return torch.cat([told, lo, hi])


def unpack(
    state: Tensor, rule: EdgeRule, other_base: bool, lo: Float64[Tensor, " in"]
) -> tuple[Float64[Tensor, " in"], Float64[Tensor, " in"]]:
    """The ends of the grid, on the device of `lo`.

    Raises
    ------
    ValueError
        The state is of a layer with another basis, grid size, order, base, policy or number of inputs.
    """
    own, n = _signature(rule, other_base), len(lo)
    given = torch.as_tensor(state)
    if given.shape != (len(own) + 2 * n,):
        raise ValueError(f"the state's grid is of another number of inputs than this layer's {n}")
    told = [round(v) for v in given[: len(own)].tolist()]
    if told != own:
        wrong = [
            f"{w} {_told(w, a)} (this one has {_told(w, b)})"
            for w, a, b in zip(WORDS, told, own, strict=True)
            if a != b
        ]
        raise ValueError(
            f"the state is of a layer with {', '.join(wrong)}: make the model with the same arguments, and "
            "call refine() first where the one that was saved was refined"
        )
    grid = given[len(own) :].to(lo.device, torch.float64, copy=True)
    return grid[:n].clone(), grid[n:].clone()


def _told(word: str, number: int) -> str:
    """A number of the signature as the argument of the layer."""
    names = NAMES.get(word)
    return str(number) if names is None else repr(names[number])


def _signature(rule: EdgeRule, other_base: bool) -> list[int]:
    return [
        NAMES["basis"].index(rule.basis), rule.size, rule.order,
        2 if other_base else int(rule.silu), NAMES["out_of_grid"].index(rule.policy),
    ]  # fmt: skip
