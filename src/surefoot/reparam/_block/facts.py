"""What a network is, read off its modules: its norms, its activations, its precision."""

from __future__ import annotations

from torch import nn

from surefoot.record import Fact
from surefoot.reparam.block import ReparamConv2d
from surefoot.reparam.models import GhostBottleneck, GhostModule, SqueezeExcite

# What neither holds a mask nor hides an activation in its own forward pass.
SMOOTH = (
    nn.Sequential, nn.ModuleDict, nn.ModuleList, nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.GroupNorm,
    nn.Identity, nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d, GhostModule, GhostBottleneck,
)  # fmt: skip
NAMED: dict[type[nn.Module], str] = {
    nn.SiLU: "silu", nn.GELU: "gelu", nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Softplus: "softplus",
    nn.ReLU: "relu", nn.ReLU6: "relu", nn.LeakyReLU: "relu", nn.Hardsigmoid: "relu",
    nn.Hardswish: "relu", nn.MaxPool2d: "relu", SqueezeExcite: "relu",
}  # fmt: skip
MASKLESS = ("none", "silu", "gelu", "tanh", "sigmoid", "softplus")


def network_facts(*models: nn.Module) -> dict[str, tuple[Fact, ...]]:
    """norm (after the sum, or per_branch), activation and dtype of the blocks' kernels.

    An activation is "relu" wherever a mask can flip, its own name where it is smooth, and unknown where a
    module has a forward pass of its own.
    """
    found: dict[str, list[Fact]] = {}
    for model in models:
        inside: set[int] = set()
        for block in model.modules():
            if not isinstance(block, ReparamConv2d):
                continue
            inside |= {id(m) for m in block.modules()}
            norm = "per_branch" if block.mode == "rep" else block.norm_kind
            kernels = [block.conv] if block.mode == "plain" else [*block.kernels.values()]
            for kernel in kernels:
                dtype = (kernel.weight if isinstance(kernel, nn.Conv2d) else kernel).dtype
                found.setdefault("dtype", []).append(str(dtype).removeprefix("torch."))
            found.setdefault("norm", []).append(norm)
            found.setdefault("activation", []).append(block.activation)
        for module in model.modules():
            kind = type(module)
            if id(module) not in inside and kind not in SMOOTH:
                name = NAMED.get(kind, f"unknown ({kind.__name__})")
                found.setdefault("activation", []).append(name)
    return {name: tuple(dict.fromkeys(values)) for name, values in found.items()}
