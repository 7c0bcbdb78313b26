"""The points of the front between size and validation loss, and the choice of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from surefoot._numerics.arguments import checked


@checked(nan=True)
@dataclass(frozen=True, eq=False)
class ParetoPoint:
    """One network of the front.

    Attributes
    ----------
    n_params
        Stored numbers of `module`.
    n_nonzero
        Those that are not zero.
    source
        What it comes from: "constant", "linear", "dense", "direct" or "autoencoder".
    depth
        Hidden layers.
    widths
        Their neurons.
    activations
        The activation of every neuron.
    val_loss
        Mean validation loss: squared error of standardised targets, or cross-entropy.
    cert_bound
        Upper limit on new rows of the error rate, or of the 90% quantile of |error| in the unit of y (of
        several outputs the largest), all points together at the confidence of the fit; None without
        certification rows, infinite where they are too few.
    module
        The network, on raw rows: [Select,] Linear, activation, ..., Linear.
    standard_error
        Of `val_loss`.
    cert_median
        As `cert_bound`, of the median of |error|; None of a classifier.
    folding_deviation
        How far `module` on raw rows is from the network on standardised ones, relative to max(1, |f|).
    """

    n_params: int
    n_nonzero: int
    source: str
    depth: int
    widths: tuple[int, ...]
    activations: tuple[tuple[str, ...], ...]
    val_loss: float
    cert_bound: float | None
    module: nn.Sequential = field(repr=False)
    standard_error: float
    cert_median: float | None
    folding_deviation: float


def choose(
    points: Sequence[ParetoPoint],
    select: str | int,
    max_params: int | None = None,
    max_nonzero: int | None = None,
) -> int:
    """Which point: the smallest within one standard error of the best, the best, or the best within caps.

    Parameters
    ----------
    points
        Smallest first.
    select
        "one_se", "best", or a cap on `n_params`.
    max_params, max_nonzero
        Caps on top of that.

    Raises
    ------
    ValueError
        None is within the caps; the message names the smallest.
    """
    caps = [c for c in (max_params, select) if isinstance(c, int)]
    most = min(caps, default=None)
    fit = [
        i
        for i, p in enumerate(points)
        if (most is None or p.n_params <= most)
        and (max_nonzero is None or p.n_nonzero <= max_nonzero)
    ]
    if not fit:
        least = min(points, key=lambda p: (p.n_params, p.n_nonzero))
        wanted = [f"max_params = {most}"] * (most is not None)
        wanted += [f"max_nonzero = {max_nonzero}"] * (max_nonzero is not None)
        raise ValueError(
            f"no point of the front has {' and '.join(wanted)}; the smallest has n_params = "
            f"{least.n_params} and n_nonzero = {least.n_nonzero}"
        )
    best = min(fit, key=lambda i: points[i].val_loss)
    if select != "one_se":
        return best
    enough = points[best].val_loss + points[best].standard_error
    return next(i for i in fit if points[i].val_loss <= enough)
