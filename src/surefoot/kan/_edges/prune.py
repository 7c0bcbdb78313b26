"""A smaller network without the edges that hardly vary, and the error this causes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot.kan._edges.norms import checked_rows, edge_moments, inputs_of
from surefoot.kan.layer import KANLinear
from surefoot.kan.network import KAN


@checked(nan=True)
@dataclass(frozen=True)
class PruneResult:
    """A pruned network and what it costs.

    Attributes
    ----------
    model
        The pruned network; the one that was given is as it was.
    widths
        Inputs, hidden layers that are left, outputs.
    edges
        How many there were.
    edges_left
        How many there are.
    parameters
        How many numbers were trained.
    parameters_left
        How many are trained or held at 0.
    held
        How many of those are held at 0.
    threshold
        Edges of a smaller norm, as a share of the largest of their layer, are removed.
    max_error
        The largest difference of an output over the rows that pruning saw, in the units of the outputs.
        Measured, not bounded: other rows may differ more.
    rms_error
        The root mean square of these differences.
    """

    model: KAN
    widths: tuple[int, ...]
    edges: int
    edges_left: int
    parameters: int
    parameters_left: int
    threshold: float
    max_error: float
    rms_error: float
    held: int = 0

    @property
    def share(self) -> float:
        """The share of the edges that is left."""
        return self.edges_left / self.edges

    def __str__(self) -> str:
        return (
            f"KAN {'-'.join(map(str, self.widths))}: {self.edges_left} of {self.edges} edges left "
            f"({100 * self.share:.3g} %), {self.parameters_left - self.held} parameters to train, biases "
            f"among them, where there were {self.parameters}; on the rows given the outputs change by "
            f"{self.rms_error:.3g} (root mean square), at most by {self.max_error:.3g}"
        )


@checked(leave=("model",))
def prune(
    model: nn.Module, x: Float[Tensor, "n in"], *, threshold: float | None = None, keep: float | None = None
) -> PruneResult:  # fmt: skip
    """Remove the edges whose curves hardly vary over the data, and the hidden units that are left without.

    An edge is measured by the root mean square of its curve around its mean, relative to the largest of its
    layer. Its mean goes into the layer's bias, so every layer of the result has one. Removed edges stay
    removed in training, whatever the optimizer, by the layer's `mask`; the function of a hidden unit that has
    lost all its inputs is a constant and goes into the bias after it. Units before a layer of basis "rbf",
    which normalises them together, stay.

    Parameters
    ----------
    model
        A KAN; it is not changed. Make a new optimizer for the result.
    x
        Inputs, as in training: of the `model_` of an estimator (X - x_mean_) / x_scale_.
    threshold
        At least 0 and below 1: edges of a smaller relative norm go. 0 removes what is removed already.
    keep
        The share of the edges to keep, those with the largest relative norm, and so the largest of every
        layer; above 0, at most 1. Edges that then no path joins to an output and to something that varies are
        dropped too.

    Raises
    ------
    ValueError
        An argument is out of range, not exactly one of `threshold` and `keep` is given, or the model has
        other layers than KANLinear.
    """
    model = _checked(model)
    layers = model.layers
    rows = checked_rows(x, layers[0].in_features)
    got = inputs_of(layers, rows)
    moments = [edge_moments(layer, each) for layer, each in zip(layers, got, strict=False)]
    relative = [norms / norms.max().clamp(min=torch.finfo().tiny) for _, norms in moments]
    live = [
        torch.ones_like(r, dtype=torch.bool) if m.mask is None else m.mask
        for r, m in zip(relative, layers, strict=True)
    ]
    if keep is not None and not any(bool(norms.any()) for _, norms in moments):
        raise ValueError(
            "x must tell edges apart where keep ranks them: every curve is constant on these "
            f"{len(rows)} rows"
        )
    cut = _cut(relative, live, threshold, keep)
    before = sum(int(m.sum()) for m in live)
    kept = [m & (r >= cut) for r, m in zip(relative, live, strict=True)]
    pruned = copy.deepcopy(model)
    own = pruned.layers
    with torch.no_grad():
        for layer, mask, (means, _) in zip(own, kept, moments, strict=True):
            _mask(layer, mask, means)
        _drop(own)
    left = sum(int(layer.mask.sum()) for layer in own if layer.mask is not None)
    error = (inputs_of(own, rows)[-1] - got[-1]).double()
    return PruneResult(
        pruned, (own[0].in_features, *(layer.out_features for layer in own)), before, left,
        _size(model), _size(pruned), cut, float(error.abs().max()), float(error.square().mean().sqrt()),
        _held(own),
    )  # fmt: skip


def _checked(model: nn.Module) -> KAN:
    if not isinstance(model, KAN):
        inner = isinstance(getattr(model, "model_", None), KAN)
        where = ": its network is model_, of inputs (X - x_mean_) / x_scale_" if inner else ""
        raise ValueError(f"model must be a KAN, got {type(model).__name__}{where}")
    other = [type(m).__name__ for m in model if not isinstance(m, KANLinear)]
    if other:
        raise ValueError(f"model must have no layers but KANLinear, got {', '.join(other)}")
    return model


def _cut(
    relative: list[Tensor], live: list[Tensor], threshold: float | None, keep: float | None
) -> float:
    if (threshold is None) == (keep is None):
        raise ValueError(
            f"give exactly one of threshold and keep, got threshold={threshold!r}, keep={keep!r}"
        )
    if threshold is not None:
        return check_number("threshold", threshold, least=0, below=1)
    share = check_number("keep", keep, above=0, most=1)
    there = torch.cat([r[m] for r, m in zip(relative, live, strict=True)])
    many = max(1, round(share * len(there)))
    return float(there.sort(descending=True).values[many - 1]) if len(there) else 0.0


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _held(layers: list[KANLinear]) -> int:
    """Numbers of removed edges, each with as many as its layer has rows of weights an input."""
    return sum(
        int((~m.mask).sum()) * (len(m.weight) // m.in_features)
        for m in layers
        if m.mask is not None
    )


def _mask(layer: KANLinear, mask: Bool[Tensor, "out in"], means: Float64[Tensor, "out in"]) -> None:
    """Hold edges at 0, their weights too, and their means in the bias."""
    if layer.bias is None:
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.out_features))
    layer.bias.add_((means * ~mask).sum(1).to(layer.bias))
    layer.mask = mask.clone()
    layer.weight.copy_(layer.live_weight())


def _drop(layers: list[KANLinear]) -> None:
    """Take out hidden units that nothing enters or nothing leaves, until there are none."""
    # A unit without inputs may take the last input of units after it, one without outputs the last output of
    # units before it: forwards, then backwards, is enough, as constants move forwards only.
    for first, second in pairwise(layers):
        if second.norm is None:
            _fold(first, second)
    for first, second in zip(layers[-2::-1], layers[:0:-1], strict=True):
        assert first.mask is not None
        assert second.mask is not None
        if second.norm is None:
            useful = second.mask.any(0)
            if not useful.any():  # a layer has at least one input, which need not be anything
                useful[0] = True
                _mask(first, first.mask & ~useful[:, None], torch.zeros_like(first.mask).double())
            _keep_units(first, second, useful)


def _fold(first: KANLinear, second: KANLinear) -> None:
    """Edges from a unit that is constant are constants: into the bias."""
    assert first.mask is not None
    assert second.mask is not None
    assert first.bias is not None
    constant = ~first.mask.any(1)
    # In float64 the layer's own edges at the unit's one value.
    means, _ = edge_moments(second, first.bias[None].detach().double())
    mask = second.mask & ~constant
    means = means * (second.mask & constant)
    _mask(second, mask, means)


def _keep_units(first: KANLinear, second: KANLinear, which: Bool[Tensor, " unit"]) -> None:
    """Only these of the units between two layers."""
    assert first.mask is not None
    assert second.mask is not None
    assert first.bias is not None
    if which.all():
        return
    first.out_features = second.in_features = int(which.sum())
    first.weight = _like(first.weight, first.weight[:, which])
    first.bias = _like(first.bias, first.bias[which])
    first.mask, second.mask = first.mask[which], second.mask[:, which]
    lines = which.repeat_interleave(second.rule.bases)
    if len(lines) < len(second.weight):
        lines = torch.cat([lines, which])
    second.weight = _like(second.weight, second.weight[lines])
    second.grid_lo, second.grid_hi = second.grid_lo[which], second.grid_hi[which]


def _like(old: nn.Parameter, new: Tensor) -> nn.Parameter:
    return nn.Parameter(new.clone(), requires_grad=old.requires_grad)
