"""Canaries: records made to be noticed, in gradient space and in input space, and their way into Opacus.

A gradient canary replaces an example's clipped gradient by a chosen vector of norm exactly 1 (in units of the
clip norm). Canaries of arXiv 2305.08846 (Dirac) and arXiv 2410.06186.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.sizes import wide
from surefoot.errors import SurefootError

NORMALISED = (nn.modules.batchnorm._BatchNorm,)


def _size(model: nn.Module) -> int:
    for name, module in model.named_modules():
        if isinstance(module, NORMALISED):
            raise ValueError(
                f"model must have no batch normalisation, got {type(module).__name__} at {name!r}: "
                "it mixes examples, and no clipping bounds what one of them does"
            )
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _count(m: int) -> int:
    return check_number("m", m, least=1, whole=True)


def dirac(model: nn.Module, m: int, seed: int) -> Float[Tensor, "m P"]:
    """m unit vectors on distinct random coordinates of the trainable parameters (sparse).

    Parameters
    ----------
    model
        Whose trainable parameters count, without batch normalisation.
    m
        How many canaries.
    seed
        Draws the coordinates.

    Raises
    ------
    ValueError
        If m exceeds the number of parameters, or the model normalises over the batch.
    """
    size = _size(model)
    if _count(m) > size:
        raise ValueError(f"m must be at most the number of parameters = {size}, got {m}")
    at = dirac_coordinates(size, m, seed)
    index = torch.stack([torch.arange(m), at])
    sparse: Tensor = torch.sparse_coo_tensor(index, torch.ones(m), (m, size), check_invariants=True)
    return sparse


def dirac_coordinates(size: int, m: int, seed: int) -> Int[Tensor, " m"]:
    """The coordinates of `dirac`.

    Parameters
    ----------
    size
        Number of parameters.
    m, seed
        As in `dirac`.
    """
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:m]


def random(model: nn.Module, m: int, seed: int) -> Float[Tensor, "m P"]:
    """m independent directions, uniform on the sphere.

    Parameters
    ----------
    model, m
        As in `dirac`.
    seed
        Draws the directions.

    Raises
    ------
    ValueError
        If the model normalises over the batch.
    """
    draw = torch.randn(_count(m), _size(model), generator=torch.Generator().manual_seed(seed))
    unit: Tensor = draw / draw.norm(dim=1, keepdim=True)
    return unit


def constant(model: nn.Module) -> Float[Tensor, "1 P"]:
    """One canary with all coordinates equal.

    Raises
    ------
    ValueError
        If the model normalises over the batch.
    """
    size = _size(model)
    return torch.full((1, size), 1 / math.sqrt(size))


def blank(dataset: Any, label: int) -> tuple[Float[Tensor, "..."], int]:
    """An input of zeros, shaped like the dataset's first, with a chosen label."""
    x = torch.as_tensor(dataset[0][0])
    return torch.zeros_like(x, dtype=torch.get_default_dtype()), label


def mislabeled(
    dataset: Any, m: int, *, classes: int, seed: int = 0
) -> tuple[Float[Tensor, "m ..."], Int[Tensor, " m"]]:
    """m real inputs, each with a wrong label drawn uniformly from the others.

    Parameters
    ----------
    dataset
        A sequence of (input, label).
    m
        How many canaries.
    classes
        Labels are 0, ..., classes - 1.
    seed
        Draws the inputs and their labels.

    Raises
    ------
    ValueError
        If the dataset has fewer than m examples or there are fewer than two classes.
    """
    if not 1 <= _count(m) <= len(dataset):
        raise ValueError(
            f"m must be between 1 and the size of the dataset = {len(dataset)}, got {m}"
        )
    check_number("classes", classes, least=2, whole=True)
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(dataset), generator=generator)[:m].tolist()
    x = torch.stack([torch.as_tensor(dataset[i][0]) for i in chosen])
    y = torch.tensor([int(dataset[i][1]) for i in chosen])
    return x, (y + torch.randint(1, classes, (m,), generator=generator)) % classes


def random_inputs(
    dataset: Any, m: int, *, classes: int, seed: int = 0
) -> tuple[Float[Tensor, "m ..."], Int[Tensor, " m"]]:
    """m inputs of Gaussian noise, shaped like the dataset's first, with random labels.

    Parameters
    ----------
    dataset
        Whose first input gives the shape.
    m, classes
        As in `mislabeled`.
    seed
        Draws inputs and labels.
    """
    shape = torch.as_tensor(dataset[0][0]).shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(_count(m), *shape, generator=generator)
    return x, torch.randint(0, classes, (m,), generator=generator)


def gradient_scores(
    before: Float[Tensor, " P"], after: Float[Tensor, " P"], canaries: Float[Tensor, "m P"]
) -> Float[Tensor, " m"]:
    """White-box score of the last iterate, <m_T - m_0, -canary>: higher means "in".

    Parameters
    ----------
    before, after
        The flat parameters at the start and at the end.
    canaries
        Gradient canaries, a row each, dense or sparse.
    """
    moved = (before - after).to(canaries.dtype)
    scores: Tensor = canaries @ moved
    return scores


@checked
def attach_gradient_canaries(
    dp_optimizer: Any,
    canaries: Float[Tensor, "m P"],
    included: Bool[Tensor, " m"],
    *,
    sample_rate: float,
    seed: int,
) -> Callable[[], None]:
    """Add the gradients of the included canaries to what an Opacus optimiser sums, before the noise.

    In each step an included canary is drawn with probability `sample_rate`, as an example would be; its
    gradient is clip norm times its vector. The divisor of the update stays as it was. Returns a
    function that takes the canaries out again.

    Parameters
    ----------
    dp_optimizer
        The optimiser that PrivacyEngine.make_private returned.
    canaries
        One row per canary, of norm at most 1: the clip norm is put in later.
    included
        Which canaries take part.
    sample_rate
        q: probability that an included canary is in a batch.
    seed
        Draws the batches of the canaries.

    Raises
    ------
    ValueError
        If the canaries do not fit the parameters, or are longer than 1.
    SurefootError
        If the optimiser is not one of Opacus'.
    """
    if not hasattr(dp_optimizer, "clip_and_accumulate"):
        raise SurefootError(
            "dp_optimizer must be a DPOptimizer of Opacus, "
            f"got {type(dp_optimizer).__name__}; make one with PrivacyEngine.make_private"
        )
    params = dp_optimizer.params
    size = sum(p.numel() for p in params)
    _check_canaries(canaries, included, size, sample_rate)
    present = torch.nonzero(included).flatten()
    vectors = canaries.index_select(0, present)
    generator = torch.Generator().manual_seed(seed)

    plain_noise = dp_optimizer.add_noise

    def add_noise() -> None:
        drawn = torch.rand(len(present), generator=generator) < sample_rate
        total = vectors.transpose(0, 1) @ drawn.to(vectors.dtype)
        clip = dp_optimizer.max_grad_norm
        at = 0
        for p in params:
            part = total[at : at + p.numel()].view_as(p).to(p)
            p.summed_grad.add_(part, alpha=float(clip))
            at += p.numel()
        plain_noise()

    # An instance attribute shadows the method; deleting it restores the class's own.
    dp_optimizer.add_noise = add_noise

    def remove() -> None:
        dp_optimizer.add_noise = plain_noise

    return remove


def _check_canaries(canaries: Tensor, included: Tensor, size: int, sample_rate: float) -> None:
    if not len(canaries):
        raise ValueError("canaries must hold at least one, got none")
    if canaries.ndim != 2 or canaries.shape[1] != size:
        raise ValueError(
            f"canaries must have shape (m, {size}), one column per parameter, "
            f"got {tuple(canaries.shape)}"
        )
    if included.dtype != torch.bool or included.shape != (canaries.shape[0],):
        raise ValueError(
            f"included must be {canaries.shape[0]} booleans, got {included.dtype} of shape "
            f"{tuple(included.shape)}"
        )
    check_number("sample_rate", sample_rate, least=0, most=1)
    squares = wide(canaries).pow(2).sum(dim=1)
    if squares.is_sparse:
        squares = squares.to_dense()
    longest = float(squares.max()) ** 0.5
    if longest > 1 + 1e-5:
        raise ValueError(
            f"canaries must have norm at most 1 (the clip norm is put in later), got {longest:.6g}"
        )
