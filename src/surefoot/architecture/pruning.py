"""Pruning with a bound on what it can change (3.4), computed from both networks and the data."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number, check_numbers
from surefoot._showing import showing
from surefoot.architecture._fit.network import Network
from surefoot.architecture.activations import ACTIVATIONS
from surefoot.architecture.compaction import network_of
from surefoot.architecture.guarantee import (
    CHANGE,
    OUTPUTS,
    PRUNING_BOUND,
    TRIVIAL_CHANGE,
    pruning_change,
)
from surefoot.architecture.plain_modules import split_plain
from surefoot.certificate import Certificate, certify
from surefoot.record import Record

Bound = Literal["mean", "max", "measured"]
THRESHOLDS = 2000
"""The most thresholds that are tried; the bound is not monotone in them, so that none is skipped blindly."""


@showing
@checked(nan=True)
@dataclass(frozen=True)
class PruningReport:
    """What pruning removed, what it could have changed and what it changed.

    Attributes
    ----------
    threshold
        Weights with |w| at most this were removed; 0 where none was.
    n_pruned
        How many.
    n_nonzero
        Entries that are not zero afterwards, biases too.
    mean_bound
        Mean over the rows of the bound on |f(x) - f~(x)|.
    max_bound
        Largest of the bounds.
    mean_change
        Mean over the rows of |f(x) - f~(x)| as measured.
    max_change
        Largest change measured.
    record
        Bound and change of every row.
    """

    threshold: float
    n_pruned: int
    n_nonzero: int
    mean_bound: float
    max_bound: float
    mean_change: float
    max_change: float
    record: Record = field(repr=False)

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """The bound of 3.4 at every row."""
        return [certify(self.record, pruning_change(), confidence)]


@checked
def pruning_bound(
    module: nn.Module,
    pruned: nn.Module,
    X: Shaped[Tensor, "n features"] | Shaped[np.ndarray, "n features"],
) -> Float64[np.ndarray, " n"]:
    """A bound on |f(x) - f~(x)| at each row, f~ being `pruned`: sound for any two networks of one shape.

    e_i = Lip_i (||W~_i||_2 e_(i-1) + |h_(i-1) (W~_i - W_i)| + |b~_i - b_i|), e_0 = 0, h of `module`; Lip_i is
    the largest Lipschitz constant of the layer's activations, 1 for the output.

    Parameters
    ----------
    module, pruned : Module
        nn.Sequential of [Select,] Linear, activation, ..., Linear of one shape.
    X : (n, features) array
        Rows, as both networks take them.

    Returns
    -------
    (n,) float64 array
        In the unit of the outputs, Euclidean norm over them.

    Raises
    ------
    ValueError
        The networks have different shapes or activations, or X does not fit.
    """
    a, b = _finite("module", module), _finite("pruned", pruned)
    same = (
        a.activations == b.activations
        and [w.shape for w in a.weights] == [w.shape for w in b.weights]
        and np.array_equal(a.inputs, b.inputs)
    )
    if not same:
        raise ValueError(
            f"pruned must have the shape of module, got {_shape(b)} beside {_shape(a)}"
        )
    return network_bound(a, b, a.layers(_inputs(module, X)))


def network_bound(a: Network, b: Network, h: list[np.ndarray]) -> Float64[np.ndarray, " n"]:
    """`pruning_bound` of arrays, given the activations of `a`."""
    e = np.zeros(h[0].shape[1])
    for i in range(a.depth + 1):
        lip = (
            max((ACTIVATIONS[n].lipschitz for n in a.activations[i]), default=1.0)
            if i < a.depth
            else 1.0
        )
        norm = float(np.linalg.norm(b.weights[i], 2)) if b.weights[i].size else 0.0
        moved = np.linalg.norm((b.weights[i] - a.weights[i]) @ h[i], axis=0)
        e = lip * (norm * e + moved + float(np.linalg.norm(b.biases[i] - a.biases[i])))
    return e


@checked
def prune_with_bound(
    module: nn.Module,
    X: Shaped[Tensor, "n features"] | Shaped[np.ndarray, "n features"],
    tol: float,
    bound: Bound = "mean",
) -> tuple[nn.Sequential, PruningReport]:
    """Set the largest set of small weights to zero whose effect stays within `tol`.

    Every threshold on |w| over all layers is tried, of more than 2000 weights 2000 of them, as the bound need
    not grow with it. Biases are kept, the shape too: `compact` slices away what no longer counts.

    Parameters
    ----------
    module : Module
        nn.Sequential of [Select,] Linear, activation, ..., Linear.
    X : (n, features) array
        Rows, for instance those of a validation set.
    tol : float
        In the unit of the outputs; 0 prunes nothing.
    bound : "mean", "max" or "measured"
        What must stay within `tol`: the mean bound, the largest bound, or the measured mean change.

    Returns
    -------
    tuple
        The pruned network, of the same shape, and a `PruningReport`.

    Raises
    ------
    ValueError
        An argument is out of its range, or `module` is no such network.
    """
    tol = check_number("tol", tol, least=0)
    bound = check_choice("bound", bound, get_args(Bound))
    a = _finite("module", module)
    h = a.layers(_inputs(module, X))
    best, threshold = largest_within(a, h, tol, bound, THRESHOLDS)
    own = copy.deepcopy(module)
    pruned = own if isinstance(own, nn.Sequential) else nn.Sequential(own)
    with torch.no_grad():
        for linear, w in zip(split_plain(pruned)[1], best.weights, strict=True):
            linear.weight.copy_(torch.from_numpy(w))
    return pruned, _report(a, best, h, threshold)


def largest_within(
    a: Network, h: list[np.ndarray], tol: float, bound: Bound, thresholds: int
) -> tuple[Network, float]:
    """The network without the largest set of small weights within `tol`, and the threshold.

    Parameters
    ----------
    a
        The network.
    h
        Its activations at the rows.
    tol, bound
        As in `prune_with_bound`.
    thresholds
        The most that are tried.
    """
    sizes = np.unique(np.concatenate([np.abs(w[w != 0]) for w in a.weights]))
    if len(sizes) > thresholds:
        sizes = sizes[np.unique(np.linspace(0, len(sizes) - 1, thresholds).astype(int))]
    for size in sizes[::-1] if tol > 0 else ():
        tried = _without(a, float(size))
        if _within(a, tried, h, tol, bound):
            return tried, float(size)
    return a, 0.0


def _within(a: Network, b: Network, h: list[np.ndarray], tol: float, bound: Bound) -> bool:
    if bound == "measured":
        return float(_change(b, h).mean()) <= tol
    found = network_bound(a, b, h)
    return float(found.mean() if bound == "mean" else found.max()) <= tol


def _change(b: Network, h: list[np.ndarray]) -> Float64[np.ndarray, " n"]:
    return np.asarray(np.linalg.norm(b.layers(h[0])[-1] - h[-1], axis=0))


def _without(a: Network, threshold: float) -> Network:
    return a.with_parts([np.where(np.abs(w) <= threshold, 0.0, w) for w in a.weights], a.biases)


def _report(a: Network, b: Network, h: list[np.ndarray], threshold: float) -> PruningReport:
    bounds, change = network_bound(a, b, h), _change(b, h)
    record = Record()
    note_pruning(record)
    record.extend(0, PRUNING_BOUND, bounds)
    record.extend(0, CHANGE, change)
    before, after = h[-1], b.layers(h[0])[-1]
    record.extend(0, OUTPUTS, np.linalg.norm(before, axis=0))
    record.extend(0, TRIVIAL_CHANGE, np.linalg.norm(before, axis=0) + np.linalg.norm(after, axis=0))
    entries = [*b.weights, *b.biases]
    return PruningReport(
        threshold=threshold,
        n_pruned=sum(int((p != q).sum()) for p, q in zip(a.weights, b.weights, strict=True)),
        n_nonzero=sum(int(np.count_nonzero(p)) for p in entries),
        mean_bound=float(bounds.mean()),
        max_bound=float(bounds.max()),
        mean_change=float(change.mean()),
        max_change=float(change.max()),
        record=record,
    )


def note_pruning(record: Record) -> None:
    """What the bound of 3.4 presumes, true of whatever this module computes."""
    record.note(
        0, "pruning", compared="same shape, same rows", activations="Lipschitz", dtype="float64"
    )


def _finite(name: str, module: nn.Module) -> Network:
    found = network_of(module)
    if not all(np.isfinite(p).all() for p in (*found.weights, *found.biases)):
        raise ValueError(f"{name} must have finite weights and biases, got NaN or infinity")
    return found


def _inputs(module: nn.Module, X: object) -> Float64[np.ndarray, "k n"]:
    """The columns that the first Linear reads, one column a row of X."""
    x = check_numbers("X", X, ndim=2)
    select, linears, _ = split_plain(module)
    wanted = linears[0].in_features if select is None else select.n_features
    if wanted is not None and x.shape[1] != wanted:
        raise ValueError(f"X must have {wanted} columns, got {x.shape[1]}")
    index = np.arange(x.shape[1]) if select is None else select.index.cpu().numpy()
    if len(index) and index.max() >= x.shape[1]:
        raise ValueError(f"X must have at least {index.max() + 1} columns, got {x.shape[1]}")
    return np.ascontiguousarray(x.T[index])


def _shape(network: Network) -> str:
    return (
        f"{len(network.inputs)} inputs, widths {network.widths}, {len(network.biases[-1])} outputs"
    )
