"""Probes of a loss landscape on a live model: smoothness, curvature, noise, closest minimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.curvature import Hessian, lanczos
from surefoot._numerics.curvature import Interval as Interval
from surefoot._numerics.sizes import wide
from surefoot.nesterov._probe.noise import NoiseSample, batch_variance
from surefoot.nesterov._probe.projection import Projection, project

LossFn = Callable[[Tensor, Tensor], Tensor]


@checked
class Landscape:
    """Measurements of f(parameters) = loss_fn(model(inputs), targets) at the model's parameters.

    Parameters
    ----------
    model
        In the mode that is used for training; BatchNorm and Dropout must be in eval mode, as a loss
        that changes from call to call has no Hessian.
    loss_fn
        A mean over examples: loss_fn(output, target).
    data
        (inputs, targets), first axis over examples.
    f_star
        The infimum of f.
    chunk
        How many examples pass through the model at once, also as per-example gradients; None: all.
    parameters
        The parameters that the landscape is about; by default all that require gradients. Frozen ones
        are left out.

    Raises
    ------
    RuntimeError
        BatchNorm or dropout in train mode, or BatchNorm without running statistics.
    ValueError
        No examples, inputs and targets of different lengths, a chunk below 1, parameters that are not
        the model's, or a loss that is no mean over examples where that is needed.

    Notes
    -----
    The smallest Hessian eigenvalue is never a mu: it is 0 on a manifold of minimisers. See the
    ledger's `mu_path` for the constant that strong aiming needs (in the setting of arXiv 2410.08395).
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        data: tuple[Tensor, Tensor],
        *,
        f_star: float = 0.0,
        chunk: int | None = None,
        parameters: Iterable[nn.Parameter] | None = None,
    ) -> None:
        inputs, targets = data
        if len(inputs) != len(targets) or not len(inputs):
            raise ValueError(
                f"data needs as many inputs as targets and at least one, got {len(inputs)} and "
                f"{len(targets)}"
            )
        check_number("f_star", f_star)
        if chunk is not None:
            check_number("chunk", chunk, least=1, whole=True)
        self.model, self.loss_fn, self.f_star = model, loss_fn, f_star
        self._inputs, self._targets, self._chunk = inputs, targets, chunk or len(inputs)
        wanted = None if parameters is None else {id(p) for p in parameters}
        strangers = (wanted or set()) - {id(p) for p in model.parameters()}
        if strangers:
            raise ValueError(
                f"parameters must be the model's own, got {len(strangers)} that are not; pass "
                "for instance model.layer.parameters()"
            )
        self._names = [
            name
            for name, p in model.named_parameters()
            if p.requires_grad and (wanted is None or id(p) in wanted)
        ]
        if not self._names:
            raise ValueError(
                "no parameter requires a gradient: call requires_grad_() on those to be measured"
            )
        self._check_mode()
        if self._chunk < len(inputs):
            self._check_mean()

    def _check_mode(self) -> None:
        for name, module in self.model.named_modules():
            kind = type(module).__name__
            norm = "BatchNorm" in kind
            # Recurrent and attention layers drop out by an attribute, without a Dropout module.
            rate = getattr(module, "dropout", 0.0)
            drops = "Dropout" in kind or (isinstance(rate, float) and rate > 0)
            if module.training and (norm or drops):
                raise RuntimeError(
                    f"{kind} {name!r} is in train mode, where the loss is no function of the "
                    "parameters alone; call .eval() on it"
                )
            if norm and getattr(module, "running_mean", 0) is None:
                raise RuntimeError(
                    f"{kind} {name!r} has no running statistics and mixes the examples of a batch "
                    "even in eval mode; build it with track_running_stats=True"
                )

    def _check_mean(self) -> None:
        """Chunks and per-example gradients are added up as parts of a mean: is the loss one?"""
        x, y = self._inputs[:2], self._targets[:2]
        with torch.no_grad():
            together = float(self.loss_fn(self.model(x), y))
            parts = [
                float(self.loss_fn(self.model(x[i : i + 1]), y[i : i + 1])) for i in range(len(x))
            ]
        apart = sum(parts) / len(parts)
        if abs(together - apart) > 1e-3 * max(abs(p) for p in parts):
            raise ValueError(
                f"loss_fn must be a mean over examples: of the first two it gives {together:.6g}, the "
                f"mean of their losses is {apart:.6g}; use reduction='mean', or chunk=None"
            )

    @property
    def _parameters(self) -> list[nn.Parameter]:
        named = dict(self.model.named_parameters())
        return [named[n] for n in self._names]

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Chunks of the data with their share in the mean."""
        total = len(self._inputs)
        for x, y in zip(
            torch.split(self._inputs, self._chunk),
            torch.split(self._targets, self._chunk),
            strict=True,
        ):
            yield x, y, len(x) / total

    def loss(self) -> float:
        """f at the parameters."""
        with torch.no_grad():
            return sum(float(self.loss_fn(self.model(x), y)) * w for x, y, w in self._pieces())

    def gradient(self) -> Float[Tensor, " P"]:
        """The full gradient, flat; `p.grad` is not touched."""
        params = self._parameters
        total = torch.zeros_like(wide(_flat(p.detach() for p in params)))
        with torch.enable_grad():
            for x, y, w in self._pieces():
                loss = self.loss_fn(self.model(x), y)
                total += w * _flat(torch.autograd.grad(loss, params, materialize_grads=True))
        return total

    def hessian_product(self, v: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
        """Hessian times v, by double backward."""
        params = self._parameters
        total = torch.zeros_like(v)
        with torch.enable_grad():
            for x, y, w in self._pieces():
                total += w * Hessian(self.loss_fn(self.model(x), y), params)(v)
        return total

    def _spectrum(self, k: int, seed: int) -> tuple[Interval, Interval]:
        self._check_mode()
        params = self._parameters
        return lanczos(
            self.hessian_product,
            sum(p.numel() for p in params),
            k,
            generator=torch.Generator().manual_seed(seed),
            dtype=params[0].dtype,
            device=params[0].device,
        )

    def smoothness(self, k: int = 30, *, seed: int = 0) -> Interval:
        """Largest Hessian eigenvalue here: [Ritz value, Ritz value + residual], k products.

        L at the start is not L along the run; the ledger's `L_path` is. Raises RuntimeError where
        a Hessian-vector product is not finite.
        """
        return self._spectrum(k, seed)[1]

    def curvature_min(self, k: int = 30, *, seed: int = 0) -> Interval:
        """Smallest Hessian eigenvalue here: [Ritz value - residual, Ritz value]; -eps if negative.

        Raises RuntimeError where a Hessian-vector product is not finite.
        """
        return self._spectrum(k, seed)[0]

    def noise(self, batch_size: int, replacement: bool = True) -> NoiseSample:
        """Noise of a batch gradient here, from all per-example gradients.

        Raises RuntimeError where a gradient is not finite.
        """
        self._check_mode()
        self._check_mean()
        params = {n: p.detach() for n, p in self.model.named_parameters()}
        chosen = {n: params[n] for n in self._names}

        def loss(chosen: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            out = functional_call(self.model, {**params, **chosen}, (x.unsqueeze(0),))
            return self.loss_fn(out, y.unsqueeze(0))

        per_example = vmap(grad(loss), in_dims=(None, 0, 0))

        def gradients() -> Iterator[Float[Tensor, "n P"]]:
            for x, y, _ in self._pieces():
                found = per_example(chosen, x, y)
                yield wide(torch.cat([found[n].reshape(len(x), -1) for n in self._names], dim=1))

        N = len(self._inputs)
        mean = torch.stack([g.sum(dim=0) for g in gradients()]).sum(dim=0) / N
        # Twice over the data: a difference of large sums would lose the digits of small noise.
        V1 = sum(float(((g - mean) ** 2).sum()) for g in gradients()) / N
        if not (torch.isfinite(mean).all() and float("inf") > V1):
            raise RuntimeError("a per-example gradient is not finite at these parameters")
        V = batch_variance(V1, batch_size, N, replacement=replacement)
        return NoiseSample(V, float(mean @ mean), V1, batch_size)

    def project(
        self,
        y: Float[Tensor, " P"] | None = None,
        tol: float = 1e-8,
        *,
        max_residuals: int = 3000,
    ) -> Projection:
        """The closest minimiser to a flat y (default: the parameters), for a squared loss.

        The retraction starts from the parameters, best the end of a run; they stay as they are.
        Residuals are output - target, scaled so that |r|^2/2 is the loss.

        Parameters
        ----------
        y
            The flat point to project, in the order of the parameters; None: the parameters.
        tol
            The tangential part of y - point, over its length, at which the search stops.
        max_residuals
            The largest number of residuals that is tried: each step solves a system of that size.

        Raises
        ------
        TypeError
            The loss is not a multiple of the summed squares, or output and targets differ in shape.
        ValueError
            More than `max_residuals` residuals, a y of the wrong size, or a residual that is not
            finite.
        """
        self._check_mode()
        scale = self._residual_scale()
        params = self._parameters
        here = _flat([p.detach() for p in params])
        if y is not None and y.shape != here.shape:
            raise ValueError(
                f"y must be flat and as long as the parameters = {len(here)}, got shape "
                f"{tuple(y.shape)}"
            )
        shapes = [p.shape for p in params]
        sizes = [p.numel() for p in params]

        def residual(t: Float[Tensor, " P"]) -> Float[Tensor, " m"]:
            pieces: tuple[Tensor, ...] = torch.split(t, sizes)
            parts = [a.reshape(s) for a, s in zip(pieces, shapes, strict=True)]
            named = dict(zip(self._names, parts, strict=True))
            output: Tensor = functional_call(self.model, named, (self._inputs,))
            return scale * (output - self._targets).reshape(-1)

        return project(
            residual, here if y is None else y, here, tol=tol, max_residuals=max_residuals
        )

    def _residual_scale(self) -> float:
        with torch.no_grad():
            output = self.model(self._inputs)
            if output.shape != self._targets.shape:
                raise TypeError(
                    "project needs a squared loss of output and targets of one shape, got output "
                    f"{tuple(output.shape)} and targets {tuple(self._targets.shape)}; for others use "
                    'the ledger with anchor="final"'
                )
            generator = torch.Generator().manual_seed(0)
            away = torch.randn(output.shape, generator=generator, dtype=output.dtype)
            away = away.to(output.device)
            try:
                ratios = [
                    float(self.loss_fn(self._targets + d, self._targets))
                    / float((wide(d) ** 2).sum())
                    for d in (away, 3 * away.flip(0), output - self._targets)
                    if float((wide(d) ** 2).sum()) > 0
                ]
            except (RuntimeError, IndexError, ValueError):
                ratios = [float("nan")]
        if (
            not all(abs(r - ratios[0]) <= 1e-6 * abs(ratios[0]) for r in ratios)
            or not ratios[0] > 0
        ):
            raise TypeError(
                "project needs a squared loss, a positive multiple of sum((output - target)^2); for "
                'others use the ledger with anchor="final"'
            )
        return float((2 * ratios[0]) ** 0.5)


def _flat(tensors: Iterable[Tensor]) -> Float[Tensor, " P"]:
    return torch.cat([t.reshape(-1) for t in tensors])
