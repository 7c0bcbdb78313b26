"""Smoothness, noise, aiming and stationarity of a training, measured on its objective."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.checks import check_number
from surefoot._numerics.curvature import Hessian, lanczos
from surefoot.errors import ArgumentError

MEASURES = ("smoothness", "noise", "aiming", "stationarity")
PRODUCTS = 12
"""Hessian-vector products of a measure of smoothness."""
SEED = 0x5EED


class Measures:
    """What of an objective is measured at the parameters of a step, before it is taken.

    Parameters
    ----------
    names
        Of `MEASURES`.
    objective
        The loss over all data, with its graph, at whatever the parameters hold.
    f_star
        Its infimum; None: not known.
    anchor
        A minimiser, flat; None: not known, aiming is then gradient domination, which needs `f_star` alone.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        objective: Callable[[], Tensor] | None,
        f_star: float | None,
        anchor: Float[Tensor, " P"] | None,
    ) -> None:
        if names and objective is None:
            raise ArgumentError(
                "objective",
                f"must be the loss over all data, a callable, for {', '.join(names)}; got None",
            )
        if f_star is not None:
            check_number("f_star", f_star)
        self.names, self.f_star, self.anchor = names, f_star, anchor
        self._objective = objective

    def __call__(self, parameters: list[Tensor], scale: float = 1.0) -> dict[str, float]:
        """Quantity -> value; gradients, parameters and random states are left as they were.

        Parameters
        ----------
        parameters
            What is trained.
        scale
            By how much the gradients that are there are scaled up.

        Returns
        -------
        "objective" is f and "stationarity" |grad f|^2; "smoothness" the largest modulus of an eigenvalue
        of the Hessian, "noise" |g - grad f|^2 of the gradient g with which the step is taken, "aiming" the
        mu of the inequality that `theorems` states.
        """
        assert self._objective is not None
        taken = [None if p.grad is None else p.grad.detach() for p in parameters]
        with _aside(parameters):
            loss = self._objective()
            hessian = Hessian(loss, parameters) if "smoothness" in self.names else None
            found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
            f = float(loss.detach())
            own = [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(parameters, found, strict=True)
            ]
            flat = _flat(own)
            square = float(flat @ flat)
            said = {"objective": f, "stationarity": square}
            if hessian is not None:
                said["smoothness"] = _largest(hessian, flat.device)
        if "noise" in self.names:
            given = _flat([o if g is None else g / scale for g, o in zip(taken, own, strict=True)])
            said["noise"] = float((given - flat) @ (given - flat))
        if "aiming" in self.names:
            aiming = self._aiming(f, flat, square, parameters)
            if aiming is not None:
                said["aiming"] = aiming
        return said

    def _aiming(
        self, f: float, g: Float[Tensor, " P"], square: float, parameters: list[Tensor]
    ) -> float | None:
        if self.f_star is None or not f > self.f_star:
            return None
        if self.anchor is None:
            return square / (2 * (f - self.f_star))
        away = _flat([p.detach() for p in parameters]) - self.anchor.to(g)
        distance = float(away @ away)
        return 2 * (float(g @ away) - (f - self.f_star)) / distance if distance else None


def _largest(hessian: Hessian, device: torch.device) -> float:
    """The most that the largest modulus of an eigenvalue is, by what twelve products know of both ends."""
    generator = torch.Generator().manual_seed(SEED)
    low, high = lanczos(hessian, hessian.size, PRODUCTS, generator=generator, device=device)
    return max(abs(low.low), abs(high.high))


def _flat(parts: list[Tensor]) -> Float[Tensor, " P"]:
    return torch.cat([p.detach().reshape(-1).double() for p in parts])


@contextmanager
def _aside(parameters: list[Tensor]) -> Iterator[None]:
    """Let the training draw the random numbers that it would have drawn."""
    devices = sorted({p.device.index or 0 for p in parameters if p.is_cuda})
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        yield
