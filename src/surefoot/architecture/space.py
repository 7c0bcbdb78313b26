"""The space of small networks: which shapes there are, and how a random one is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.architecture._nets import drawing
from surefoot.architecture._nets.family import shapes
from surefoot.architecture.activations import ACTIVATIONS
from surefoot.architecture.net_batch import NetBatch

STANDARDISING_POINTS = 128
LEAST_STD = 1e-2


@checked
@dataclass(frozen=True)
class MLPSpace:
    """Networks of D inputs, K outputs, 1 to L hidden layers of 1 to W neurons, an activation a neuron.

    Parameters
    ----------
    n_in, n_out : int
        Inputs D and outputs K.
    max_width, max_depth : int
        The widest hidden layer W and the most hidden layers L.
    activations : sequence of str
        What a neuron can have, of `ACTIVATIONS`.
    weight_scale, bias_scale : float
        A random network has weights U(-weight_scale, weight_scale) and biases U(-bias_scale, bias_scale).
    sparsity : sequence of float
        Rates in [0, 1), one drawn a network, at which weights are 0.
    input_dist : "uniform" or "normal"
        Inputs are `input_scale` times U[-1, 1] or N(0, 1).
    input_scale : float
        See `input_dist`.
    min_width : int
        Widths are uniform on min(min_width, W)..W; active neurons come first.
    standardise : bool
        Whether an affine map is folded into the last layer so that the outputs have mean 0 and standard
        deviation 1 at 128 inputs. Without it the outputs span orders of magnitude, and an autoencoder
        learns nothing.
    edges : "independent" or "connected"
        "connected" draws the edges as the authors do: a path from every input to the output, then random
        edges until int(total * (1 - sparsity)) exist.

    Raises
    ------
    ValueError
        An argument is not allowed; the message names it.
    """

    n_in: int
    n_out: int
    max_width: int
    max_depth: int
    activations: tuple[str, ...] = ("tanh",)
    weight_scale: float = 3.0
    bias_scale: float = 1.0
    sparsity: tuple[float, ...] = (0.0, 0.3, 0.5, 0.7)
    input_dist: Literal["uniform", "normal"] = "uniform"
    input_scale: float = 1.0
    min_width: int = 3
    standardise: bool = True
    edges: Literal["independent", "connected"] = "independent"

    def __post_init__(self) -> None:
        for name in ("n_in", "n_out", "max_width", "max_depth", "min_width"):
            self._set(name, check_number(name, getattr(self, name), least=1, whole=True))
        self._set("weight_scale", check_number("weight_scale", self.weight_scale, above=0))
        self._set("bias_scale", check_number("bias_scale", self.bias_scale, least=0))
        self._set("input_scale", check_number("input_scale", self.input_scale, above=0))
        rates = _several("sparsity", self.sparsity)
        self._set("sparsity", tuple(check_number("sparsity", r, least=0, below=1) for r in rates))
        names = _several("activations", self.activations)
        self._set("activations", tuple(check_choice("activations", n, ACTIVATIONS) for n in names))
        if len(set(names)) < len(names):
            raise ValueError(f"activations must be distinct, got {self.activations}")
        check_choice("input_dist", self.input_dist, ("uniform", "normal"))
        check_choice("edges", self.edges, ("independent", "connected"))
        if not isinstance(self.standardise, bool):
            raise ValueError(f"standardise must be True or False, got {self.standardise!r}")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @classmethod
    def paper(cls, activation: str = "sigmoid") -> MLPSpace:
        """The space of arXiv 2410.08339 as its authors' code has it: 3 - (3..7) x (1..4) - 1, without biases.

        Parameters
        ----------
        activation : "sigmoid", "leaky_relu_0.1" or "identity"
            One for all neurons.
        """
        check_choice("activation", activation, ("sigmoid", "leaky_relu_0.1", "identity"))
        return cls(
            3, 1, 7, 4, (activation,), weight_scale=10.0, bias_scale=0.0, sparsity=(0.5, 0.7, 0.8, 0.9),
            standardise=False, edges="connected",
        )  # fmt: skip

    def sample(
        self, n: int, depth: int | None = None, generator: torch.Generator | None = None
    ) -> NetBatch:
        """Random networks of one depth, float32.

        Parameters
        ----------
        n : int
            How many.
        depth : int, optional
            Hidden layers; by default one depth is drawn for the whole batch, uniformly.
        generator : torch.Generator, optional
            Draws all of it; by default torch's global one.

        Raises
        ------
        ValueError
            n is below 1 or depth not in 1..max_depth.
        """
        n = check_number("n", n, least=1, whole=True)
        if depth is None:
            depth = 1 + int(torch.randint(self.max_depth, (), generator=generator))
        depth = check_number("depth", depth, least=1, most=self.max_depth, whole=True)
        W, sides = self.max_width, shapes(self, depth)
        least = min(self.min_width, W)
        widths = [torch.randint(least, W + 1, (n,), generator=generator) for _ in range(depth)]
        gates = [(torch.arange(W) < w[:, None]).float() for w in widths]
        rate = drawing.choose(self.sparsity, n, generator)
        if self.edges == "connected":
            masks = drawing.connected(sides, widths, rate, generator)
        else:
            masks = drawing.independent(sides, rate, generator)
        weights = [drawing.uniform(m.shape, self.weight_scale, generator) * m for m in masks]
        biases = [drawing.uniform((n, s[1]), self.bias_scale, generator) for s in sides]
        kinds = len(self.activations)
        acts = [
            torch.eye(kinds, dtype=torch.float32)[torch.randint(kinds, (n, W), generator=generator)]
            for _ in gates
        ]
        nets = NetBatch(self, weights, biases, gates, acts)
        return self._standardised(nets, generator) if self.standardise else nets

    def sample_inputs(
        self, n: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "n D"]:
        """Random inputs, float32.

        Parameters
        ----------
        n : int
            How many.
        generator : torch.Generator, optional
            Draws them; by default torch's global one.
        """
        n = check_number("n", n, least=1, whole=True)
        if self.input_dist == "normal":
            return (
                torch.randn(n, self.n_in, generator=generator, dtype=torch.float32)
                * self.input_scale
            )
        return drawing.uniform((n, self.n_in), self.input_scale, generator)

    def grid(self, points: int = 10) -> Float[Tensor, "n D"]:
        """The full grid linspace(-input_scale, input_scale, points)^D, at which the authors compare networks.

        Parameters
        ----------
        points : int
            Along each input; points^D in all.
        """
        points = check_number("points", points, least=2, whole=True)
        axis = torch.linspace(-self.input_scale, self.input_scale, points, dtype=torch.float32)
        return torch.cartesian_prod(*[axis] * self.n_in).reshape(-1, self.n_in)

    def _standardised(self, nets: NetBatch, generator: torch.Generator | None) -> NetBatch:
        # Each network its own inputs: shared ones would make the networks of a batch dependent.
        x = self.sample_inputs(len(nets) * STANDARDISING_POINTS, generator)
        y = nets(x.view(len(nets), STANDARDISING_POINTS, self.n_in))
        mean, std = y.mean(1), y.std(1, correction=0).clamp(min=LEAST_STD)
        nets.weights[-1] = nets.weights[-1] / std[:, None]
        nets.biases[-1] = (nets.biases[-1] - mean) / std
        return nets


def _several(name: str, value: object) -> Sequence[object]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or not value:
        raise ValueError(f"{name} must be a tuple of at least one, got {value!r}")
    return value
