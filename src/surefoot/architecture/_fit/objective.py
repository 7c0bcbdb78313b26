"""Losses of the three tasks, their gradients by hand: autograd would cost more than the sums."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float64

from surefoot.architecture._fit.network import Array, Network, activate, times_slope

Task = Literal["squared", "logistic", "softmax"]


@dataclass(frozen=True, eq=False)
class Rows:
    """Standardised rows, stored one column a row of data.

    Attributes
    ----------
    x
        (features, n).
    y
        (outputs, n): standardised targets, 0 and 1 for "logistic", one-hot for "softmax".
    weight
        (n,) with sum 1.
    task
        Of which loss.
    """

    x: Float64[np.ndarray, "features n"]
    y: Float64[np.ndarray, "outputs n"]
    weight: Float64[np.ndarray, " n"]
    task: Task

    def __len__(self) -> int:
        return int(self.x.shape[1])

    def take(self, index: np.ndarray) -> Rows:
        """Some of the rows, weights scaled to sum 1 again."""
        w = self.weight[index]
        return Rows(
            np.ascontiguousarray(self.x[:, index]),
            np.ascontiguousarray(self.y[:, index]),
            w / w.sum(),
            self.task,
        )


def losses(f: Array, y: Array, task: Task) -> Array:
    """The loss of every row: mean squared error over the outputs, or cross-entropy."""
    if task == "squared":
        return np.asarray(np.mean((f - y) ** 2, axis=0))
    if task == "logistic":
        return np.asarray(np.logaddexp(0, f[0]) - y[0] * f[0])
    top = f.max(axis=0)
    shifted = f - top
    return np.asarray(np.log(np.exp(shifted).sum(axis=0)) - (shifted * y).sum(axis=0))


def mean_loss(network: Network, rows: Rows) -> float:
    """The weighted mean loss, without weight decay."""
    f = network.layers(rows.x[network.inputs])[-1]
    return float(losses(f, rows.y, rows.task) @ rows.weight)


def loss_and_slope(f: Array, rows: Rows) -> tuple[float, Array]:
    """The weighted mean loss, and its gradient with respect to f."""
    if rows.task == "squared":
        e = f - rows.y
        we = e * rows.weight
        k = len(f)
        return float(np.vdot(e, we)) / k, we * (2 / k)
    if rows.task == "logistic":
        p = 0.5 * (1 + np.tanh(0.5 * f))
        value = float((np.logaddexp(0, f[0]) - rows.y[0] * f[0]) @ rows.weight)
        return value, (p - rows.y) * rows.weight
    e = f - f.max(axis=0)
    linear = (e * rows.y).sum(axis=0)
    np.exp(e, out=e)
    total = e.sum(axis=0)
    value = float((np.log(total) - linear) @ rows.weight)
    e /= total
    e -= rows.y
    e *= rows.weight
    return value, e


class Objective:
    """Mean loss + alpha |W|^2 of a network as a function of one vector.

    Parameters
    ----------
    network
        Its shape; where `free` is given, entries that are zero there stay zero.
    rows
        What it is fitted to.
    alpha
        Weight decay, of weights and not of biases.
    keep_zeros
        Whether entries that are zero in `network` stay so.
    """

    def __init__(self, network: Network, rows: Rows, alpha: float, keep_zeros: bool) -> None:
        self.network, self.rows, self.alpha = network, rows, alpha
        self.h0 = np.ascontiguousarray(rows.x[network.inputs])
        shapes = [p.shape for ps in zip(network.weights, network.biases, strict=True) for p in ps]
        ends = np.cumsum([int(np.prod(s)) for s in shapes]).tolist()
        self.places = list(zip([0, *ends[:-1]], ends, shapes, strict=True))
        self.theta = self.pack([*zip(network.weights, network.biases, strict=True)])
        self.free = self.theta != 0 if keep_zeros else np.ones(len(self.theta), bool)
        self.zeros = not self.free.all()
        # Weights decay, biases do not.
        self.decay = np.concatenate(
            [np.full(e - s, 0.0 if i % 2 else alpha) for i, (s, e, _) in enumerate(self.places)]
        )
        self.twice = 2 * self.decay

    def pack(self, pairs: list[tuple[Array, Array]]) -> Array:
        """All entries in one vector."""
        return np.concatenate([p.ravel() for pair in pairs for p in pair])

    def parts(self, theta: Array) -> list[Array]:
        """Views of the vector: weights and biases in turn."""
        return [theta[start:stop].reshape(shape) for start, stop, shape in self.places]

    def at(self, theta: Array) -> Network:
        """The network of a vector."""
        parts = [p.copy() for p in self.parts(theta)]
        return self.network.with_parts(parts[::2], parts[1::2])

    def loss(self, theta: Array, h0: Array, rows: Rows) -> float:
        """The mean loss on other rows, without weight decay; infinite where a number is not finite."""
        value = float(
            losses(self._forward(self.parts(theta), h0)[-1], rows.y, rows.task) @ rows.weight
        )
        return value if math.isfinite(value) else math.inf

    def _forward(self, parts: list[Array], h: Array) -> list[Array]:
        found, names = [h], self.network.activations
        for i in range(len(names) + 1):
            h = parts[2 * i] @ h
            h += parts[2 * i + 1][:, None]
            if i < len(names):
                activate(h, names[i])
            found.append(h)
        return found

    def __call__(self, theta: Array) -> tuple[float, Array]:
        """Value and gradient."""
        parts, names = self.parts(theta), self.network.activations
        h = self._forward(parts, self.h0)
        value, d = loss_and_slope(h[-1], self.rows)
        gradient = np.empty_like(theta)
        slots = self.parts(gradient)
        for i in range(len(names), -1, -1):
            np.matmul(d, h[i].T, out=slots[2 * i])
            d.sum(axis=1, out=slots[2 * i + 1])
            if i:
                d = parts[2 * i].T @ d
                times_slope(d, h[i], names[i - 1])
        value += float(self.decay @ (theta * theta))
        gradient += self.twice * theta
        if self.zeros:
            gradient *= self.free
        return value, gradient
