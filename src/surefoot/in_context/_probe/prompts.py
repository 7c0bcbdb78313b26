"""The prompts of a probe: one half to fit, another to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.checks import check_number, check_numbers
from surefoot.in_context._probe.asking import Examples
from surefoot.in_context.prompts import GaussianPrompts

SIZE = 256
FEWEST = 4


@dataclass(frozen=True)
class Halves:
    """Prompts in two halves, and what is known of their law.

    Attributes
    ----------
    fit, held
        The halves.
    sigma
        (d, d): the covariance of x, given or measured.
    w
        (B, d): the weights of all prompts, where they are known.
    gaussian
        The law, where prompts are drawn from the theory's own.
    """

    fit: Examples
    held: Examples
    sigma: Float[Tensor, "d d"]
    w: Float[Tensor, "B d"] | None
    gaussian: GaussianPrompts | None


def halves(prompts: Any, d: int, n: int, size: int | None, seed: int) -> Halves:
    """Draw prompts, or split those that are given.

    Parameters
    ----------
    prompts
        None, what has `sample(B)`, or (X, y, xq) as a `Prompt` or three arrays.
    d, n
        Features and examples.
    size
        Prompts of each half.
    seed
        Of the draws where `prompts` is None.

    Raises
    ------
    ValueError
        Prompts have other sizes, are too few, or are not finite.
    """
    if size is not None:
        size = check_number("size", size, least=max(FEWEST, d), whole=True)
    law = GaussianPrompts(d, n, seed=seed) if prompts is None else prompts
    if hasattr(law, "sample"):
        given = law.sample(2 * (size or max(SIZE, d)))
    else:
        given = law
    X, y, xq = (
        torch.from_numpy(check_numbers(f"{name} of prompts", value, ndim=ndim))
        for (name, value), ndim in zip(_named(given), (3, 2, 2), strict=True)
    )
    count = len(X)
    if X.shape[1:] != (d, n) or y.shape != (count, n) or xq.shape != (count, d):
        raise ValueError(
            f"prompts must have X (B, {d}, {n}), y (B, {n}) and xq (B, {d}) for d={d} and n={n}, "
            f"got {tuple(X.shape)}, {tuple(y.shape)} and {tuple(xq.shape)}"
        )
    half = size or count // 2
    if half < max(FEWEST, d) or 2 * half > count:
        raise ValueError(
            f"prompts must be at least {2 * max(FEWEST, d, size or 0)}, half to fit and half to judge by, "
            f"got {count}"
        )
    whole = Examples(X, y, xq)
    w = getattr(given, "w", None)
    sigma = getattr(law, "sigma", None)
    if isinstance(law, GaussianPrompts):
        sigma = torch.eye(d, dtype=torch.float64) if sigma is None else sigma
    elif sigma is None:
        sigma = (X @ X.mT).mean(0) / n
    return Halves(
        whole.rows(slice(half)), whole.rows(slice(half, 2 * half)), sigma.to(torch.float64),
        None if w is None else w[: 2 * half].to(torch.float64),
        law if isinstance(law, GaussianPrompts) else None,
    )  # fmt: skip


def _named(given: Any) -> list[tuple[str, Any]]:
    names = ("X", "y", "xq")
    if all(hasattr(given, name) for name in names):
        return [(name, getattr(given, name)) for name in names]
    if isinstance(given, (tuple, list)) and len(given) == 3:
        return list(zip(names, given, strict=True))
    raise ValueError(
        "prompts must have a method sample(B), or be (X, y, xq) of shapes (B, d, n), (B, n), (B, d), "
        f"got {type(given).__name__}"
    )
