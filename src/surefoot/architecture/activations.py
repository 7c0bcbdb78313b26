"""The activations a neuron can have: functions, modules, Lipschitz constants; and several in a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number


@checked
@dataclass(frozen=True)
class Activation:
    """One activation.

    Attributes
    ----------
    name
        Under which `MLPSpace` and `ACTIVATIONS` know it.
    function
        Elementwise, of a tensor.
    module
        Makes the plain module of `torch.nn` that computes it.
    lipschitz
        The least constant c with |f(a) - f(b)| <= c |a - b|.
    slope
        The slope below 0 of a leaky rectifier, else None.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    module: Callable[[], nn.Module]
    lipschitz: float
    slope: float | None = None

    def __post_init__(self) -> None:
        check_number("lipschitz", self.lipschitz, least=0)
        if self.slope is not None:
            check_number("slope", self.slope)


def _leaky(name: str, slope: float) -> Activation:
    return Activation(
        name, lambda x: F.leaky_relu(x, slope), lambda: nn.LeakyReLU(slope), 1.0, slope
    )


# The authors' slope of leaky_relu is 0.1 in the autoencoder and 0.01 in the tasks and the follow-up.
ACTIVATIONS: dict[str, Activation] = {
    each.name: each
    for each in (
        Activation("tanh", torch.tanh, nn.Tanh, 1.0),
        Activation("relu", torch.relu, nn.ReLU, 1.0),
        Activation("sigmoid", torch.sigmoid, nn.Sigmoid, 0.25),
        _leaky("leaky_relu", 0.01),
        _leaky("leaky_relu_0.1", 0.1),
        Activation("identity", lambda x: x, nn.Identity, 1.0),
    )
}


@checked
class MixedActivation(nn.Module):
    """One layer with several activations: each on its own contiguous block of neurons.

    Parameters
    ----------
    counts : sequence of int
        How many neurons each block has.
    names : sequence of str
        The activation of each block, of `ACTIVATIONS`.

    Raises
    ------
    ValueError
        As many counts as names are needed, each of at least 1, and known names.
    """

    def __init__(self, counts: Sequence[int], names: Sequence[str]) -> None:
        super().__init__()
        self.counts = tuple(check_number("counts", c, least=1, whole=True) for c in counts)
        self.names = tuple(check_choice("names", n, ACTIVATIONS) for n in names)
        if len(self.counts) != len(self.names) or not self.counts:
            raise ValueError(
                "counts and names must have one entry a block and at least one block, "
                f"got {len(self.counts)} counts and {len(self.names)} names"
            )

    def forward(self, x: Float[Tensor, "*batch neurons"]) -> Float[Tensor, "*batch neurons"]:
        """Each block through its own activation."""
        blocks = x.split(self.counts, -1)  # type: ignore[no-untyped-call]
        return torch.cat(
            [ACTIVATIONS[n].function(b) for n, b in zip(self.names, blocks, strict=True)], -1
        )

    def extra_repr(self) -> str:
        """The blocks, in order."""
        return ", ".join(f"{c} {n}" for c, n in zip(self.counts, self.names, strict=True))


def activation_module(names: Iterable[str]) -> nn.Module:
    """The module of one layer, whose neurons are sorted by activation: plain where there is only one.

    Parameters
    ----------
    names : iterable of str
        The activation of each neuron; equal ones side by side.
    """
    blocks = _blocks(names)
    if len(blocks) == 1:
        return ACTIVATIONS[blocks[0][0]].module()
    return MixedActivation([c for _, c in blocks], [n for n, _ in blocks])


def activation_names(module: nn.Module, width: int) -> list[str]:
    """The activation of each neuron of a layer, read off its module.

    Parameters
    ----------
    module : Module
        `MixedActivation`, or a plain module that `ACTIVATIONS` has.
    width : int
        How many neurons the layer has.

    Raises
    ------
    ValueError
        It is no activation of `ACTIVATIONS`, or its blocks are not as wide as the layer.
    """
    if isinstance(module, MixedActivation):
        if sum(module.counts) != width:
            raise ValueError(
                f"the blocks of MixedActivation have {sum(module.counts)} neurons, its layer {width}"
            )
        return [n for n, c in zip(module.names, module.counts, strict=True) for _ in range(c)]
    for name, known in ACTIVATIONS.items():
        plain = known.module()
        if type(module) is type(plain) and known.slope == getattr(module, "negative_slope", None):
            return [name] * width
    raise ValueError(
        f"{module!r} is no activation that surefoot.architecture knows; allowed are "
        f"{', '.join(ACTIVATIONS)}, as modules of torch.nn or in a MixedActivation"
    )


def _blocks(names: Iterable[str]) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for name in names:
        if found and found[-1][0] == name:
            found[-1] = (name, found[-1][1] + 1)
        else:
            found.append((name, 1))
    return found
