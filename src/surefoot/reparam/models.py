"""VGG- and Ghost-style networks of re-parametrised blocks, in any mode."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.reparam.block import Activation, Mode, Norm, ReparamConv2d, normalisation

VGG_DEPTHS = {"B1": (4, 6, 16, 1), "B0": (2, 3, 8, 1), "L1": (8, 14, 24, 1)}
VGG_WIDTHS = {"B1": (128, 256, 512, 2048)}

# kernel, expanded, out, squeeze ratio, stride: RepGhostNet (arXiv 2211.06088), from its code.
GHOST_STAGES: tuple[tuple[tuple[int, int, int, float, int], ...], ...] = (
    ((3, 8, 16, 0, 1),),
    ((3, 24, 24, 0, 2),),
    ((3, 36, 24, 0, 1),),
    ((5, 36, 40, 0.25, 2),),
    ((5, 60, 40, 0.25, 1),),
    ((3, 120, 80, 0, 2),),
    (
        (3, 100, 80, 0, 1),
        (3, 120, 80, 0, 1),
        (3, 120, 80, 0, 1),
        (3, 240, 112, 0.25, 1),
        (3, 336, 112, 0.25, 1),
    ),
    ((5, 336, 160, 0.25, 2),),
    ((5, 480, 160, 0, 1), (5, 480, 160, 0.25, 1), (5, 480, 160, 0, 1), (5, 480, 160, 0.25, 1)),
)


class SqueezeExcite(nn.Module):
    """Channel attention after a block: outside the linear sum, so the equivalence holds."""

    def __init__(
        self, channels: int, ratio: float = 0.25, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        inner = max(1, int(channels * ratio))
        self.down = nn.Conv2d(channels, inner, 1, dtype=dtype)
        self.up = nn.Conv2d(inner, channels, 1, dtype=dtype)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The input times a gate a channel."""
        gate = self.up(torch.relu(self.down(x.mean((2, 3), keepdim=True))))
        return x * nn.functional.hardsigmoid(gate)


@checked
def repopt_vgg(
    depths: Sequence[int],
    widths: Sequence[int],
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    mode: Mode = "csla",
    strides: Sequence[int] | None = None,
    branches: Sequence[str] = ("kxk", "1x1", "identity"),
    squeeze_excite: bool = False,
    norm: Norm = "bn",
    activation: Activation = "relu",
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """A RepVGG-style network: stem, stages of 3 x 3 blocks, global average, linear head.

    Parameters
    ----------
    depths, widths
        Blocks and channels a stage; `VGG_DEPTHS["B1"]` and `VGG_WIDTHS["B1"]` are the paper's.
    num_classes, in_channels
        Of the head and of the input.
    mode, branches, norm, activation, dtype
        Of every block, as for `ReparamConv2d`.
    squeeze_excite
        Channel attention after every block.
    strides
        Of the stem and of each stage's first block; all 2 by default (ImageNet), (1, 1, 2, 2, 2) for
        small images.
    seed
        Of the initial kernels and head; modes with one seed share the kernels that they share.

    Raises
    ------
    ValueError
        `depths`, `widths` and `strides` do not go together, or an argument is none of its kind.
    """
    depths, widths = _sizes("depths", depths), _sizes("widths", widths)
    strides = (2,) * (len(depths) + 1) if strides is None else _sizes("strides", strides)
    num_classes = check_number("num_classes", num_classes, least=1, whole=True)
    in_channels = check_number("in_channels", in_channels, least=1, whole=True)
    seed = check_number("seed", seed, whole=True)
    if len(depths) != len(widths) or len(strides) != len(depths) + 1:
        raise ValueError(
            f"{len(depths)} depths need {len(depths)} widths and {len(depths) + 1} strides, "
            f"got {len(widths)} and {len(strides)}"
        )
    generator = torch.Generator().manual_seed(seed)
    layers: OrderedDict[str, nn.Module] = OrderedDict()

    def block(in_ch: int, out_ch: int, stride: int, index: int) -> ReparamConv2d:
        return ReparamConv2d(
            in_ch, out_ch, 3, stride, branches=branches, mode=mode, index=index, norm=norm,
            activation=activation, generator=generator, dtype=dtype,
        )  # fmt: skip

    channels = min(64, widths[0])
    layers["stem"] = block(in_channels, channels, strides[0], 0)
    for s, (depth, width, stride) in enumerate(zip(depths, widths, strides[1:], strict=True)):
        for index in range(depth):
            layers[f"stage{s}_{index}"] = block(channels, width, stride if index == 0 else 1, index)
            channels = width
            if squeeze_excite:
                layers[f"stage{s}_{index}_se"] = SqueezeExcite(width, dtype=dtype)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flat"] = nn.Flatten()
    layers["head"] = nn.Linear(channels, num_classes, dtype=dtype)
    model = nn.Sequential(layers)
    _draw_plain_layers(model, generator)
    return model


class GhostModule(nn.Module):
    """1 x 1 convolution, then a depthwise "cheap operation" fused with the identity (arXiv 2211.06088)."""

    def __init__(
        self,
        in_ch: int,
        out_ch: int,
        *,
        mode: Mode,
        index: int,
        relu: bool,
        norm: Norm,
        activation: Activation,
        generator: torch.Generator,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        self.primary = nn.Sequential(
            nn.Conv2d(in_ch, out_ch, 1, bias=False, dtype=dtype),
            normalisation(norm, out_ch, dtype),
            _activation(activation if relu else "none"),
        )
        self.cheap = ReparamConv2d(
            out_ch, out_ch, 3, 1, out_ch, ("kxk", "identity"), mode, index=index + 1, norm=norm,
            activation=activation if relu else "none", generator=generator, dtype=dtype,
        )  # fmt: skip

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """The module's output."""
        y: Tensor = self.cheap(self.primary(x))
        return y


class GhostBottleneck(nn.Module):
    """Two modules with an optional strided depthwise convolution and attention, and a shortcut."""

    def __init__(
        self, in_ch: int, mid: int, out: int, kernel: int, stride: int, ratio: float, first: GhostModule,
        second: GhostModule, norm: Norm, dtype: torch.dtype | None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.first, self.second = first, second

        def depthwise(channels: int) -> nn.Sequential:
            conv = nn.Conv2d(
                channels,
                channels,
                kernel,
                stride,
                kernel // 2,
                groups=channels,
                bias=False,
                dtype=dtype,
            )
            return nn.Sequential(conv, normalisation(norm, channels, dtype))

        self.stride = depthwise(mid) if stride > 1 else nn.Identity()
        self.se = SqueezeExcite(mid, ratio, dtype) if ratio else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if in_ch != out or stride != 1:
            self.shortcut = nn.Sequential(
                depthwise(in_ch),
                nn.Conv2d(in_ch, out, 1, bias=False, dtype=dtype),
                normalisation(norm, out, dtype),
            )

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """The bottleneck's output."""
        y: Tensor = self.second(self.se(self.stride(self.first(x)))) + self.shortcut(x)
        return y


@checked
def repopt_ghost(
    width: float = 0.5,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    mode: Mode = "csla",
    stages: Sequence[Sequence[tuple[int, int, int, float, int]]] = GHOST_STAGES,
    stem_stride: int = 2,
    head_channels: tuple[int, int] = (960, 1280),
    norm: Norm = "bn",
    activation: Activation = "relu",
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> nn.Sequential:
    """A RepGhost-style network, `width` times as wide; 0.5 is the paper's.

    The scale of a cheap operation starts at sqrt(2 / (m + 1)), m its module's place in the stage from 1
    [authors' code].

    Parameters
    ----------
    width
        Factor on all channels.
    num_classes, in_channels
        Of the head and of the input.
    mode, norm, activation, dtype
        Of every cheap operation, as for `ReparamConv2d`; norm and activation of the other layers too.
    stages
        (kernel, expanded, out, squeeze ratio, stride) of each bottleneck of each stage.
    stem_stride
        Of the first convolution; 1 for small images.
    head_channels
        Channels before and after the last hidden layer, before `width`; the second is taken as it is.
    seed
        Of the initial weights.

    Raises
    ------
    ValueError
        An argument that is none of its kind.
    """
    check_choice("mode", mode, get_args(Mode))
    check_choice("norm", norm, get_args(Norm))
    check_choice("activation", activation, get_args(Activation))
    width = check_number("width", width, above=0)
    num_classes = check_number("num_classes", num_classes, least=1, whole=True)
    in_channels = check_number("in_channels", in_channels, least=1, whole=True)
    stem_stride = check_number("stem_stride", stem_stride, least=1, whole=True)
    if len(_sizes("head_channels", head_channels)) != 2:
        raise ValueError(f"head_channels must be two whole numbers, got {head_channels!r}")
    stages = _stages(stages)
    generator = torch.Generator().manual_seed(check_number("seed", seed, whole=True))

    def wide(channels: float) -> int:
        return max(4, int(channels * width + 2) // 4 * 4)

    channels = wide(16)
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stem_stride, 1, bias=False, dtype=dtype),
            normalisation(norm, channels, dtype),
            _activation(activation),
        )
    )
    for s, stage in enumerate(stages):
        module = 0
        for b, (kernel, expanded, out, ratio, stride) in enumerate(stage):
            mid, end = wide(expanded), wide(out)
            made = []
            for relu, (i, o) in ((True, (channels, mid)), (False, (mid, end))):
                module += 1
                made.append(
                    GhostModule(
                        i, o, mode=mode, index=module, relu=relu, norm=norm, activation=activation,
                        generator=generator, dtype=dtype,
                    )
                )  # fmt: skip
            layers[f"stage{s}_{b}"] = GhostBottleneck(
                channels, mid, end, kernel, stride, ratio, made[0], made[1], norm, dtype
            )
            channels = end
    inner, hidden = wide(head_channels[0]), head_channels[1]
    layers["last"] = nn.Sequential(
        nn.Conv2d(channels, inner, 1, bias=False, dtype=dtype),
        normalisation(norm, inner, dtype),
        _activation(activation),
    )
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flat"] = nn.Flatten()
    layers["hidden"] = nn.Linear(inner, hidden, dtype=dtype)
    layers["act"] = _activation(activation)
    layers["head"] = nn.Linear(hidden, num_classes, dtype=dtype)
    model = nn.Sequential(layers)
    _draw_plain_layers(model, generator)
    return model


def _sizes(name: str, given: Any) -> tuple[int, ...]:
    """Whole numbers above 0; ValueError names the argument."""
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise ValueError(f"{name} must be whole numbers, got {given!r}")
    return tuple(check_number(name, size, least=1, whole=True) for size in given)


def _stages(given: Any) -> list[list[Any]]:
    wrong = ValueError(
        f"stages must hold (kernel, expanded, out, squeeze ratio, stride) of each bottleneck, got {given!r}"
    )
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise wrong
    given = list(given)
    if not given:
        raise wrong
    found = []
    for stage in given:
        if isinstance(stage, str) or not isinstance(stage, Iterable):
            raise wrong
        rows = [tuple(row) if isinstance(row, tuple | list) else () for row in stage]
        if any(len(row) != 5 for row in rows):
            raise wrong
        for kernel, expanded, out, ratio, stride in rows:
            _sizes("stages", (kernel, expanded, out, stride))
            check_number("stages", ratio, least=0)
        found.append(rows)
    return found


def _activation(kind: Activation) -> nn.Module:
    return {"relu": nn.ReLU, "silu": nn.SiLU, "none": nn.Identity}[kind]()


def _draw_plain_layers(model: nn.Module, generator: torch.Generator) -> None:
    """Layers outside the blocks: torch's default laws, from the generator; blocks have drawn already."""
    from surefoot.reparam._block.branches import draw_kernel

    inside = {
        id(m)
        for block in model.modules()
        if isinstance(block, ReparamConv2d)
        for m in block.modules()
    }
    with torch.no_grad():
        for module in model.modules():
            if id(module) in inside or not isinstance(module, nn.Conv2d | nn.Linear):
                continue
            weight = module.weight
            weight.copy_(draw_kernel(tuple(weight.shape), generator, weight.dtype))
            if module.bias is not None:
                fan_in = weight[0].numel()
                drawn = draw_kernel((len(module.bias), fan_in), generator, weight.dtype)
                module.bias.copy_(drawn[:, 0])
