"""The network of a run's configuration: VGG- or Ghost-style, normalised as it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from torch import nn

from surefoot._numerics.checks import check_choice
from surefoot.federated.run_config import number, refuse_unused, whole
from surefoot.reparam.block import Mode, Norm
from surefoot.reparam.models import GHOST_STAGES, VGG_DEPTHS, VGG_WIDTHS, repopt_ghost, repopt_vgg
from surefoot.reparam.task import Build

Statistics = Literal["average", "local", "group_norm"]
Attention = Literal["auto", "on", "off"]
# The keys of either architecture, and their defaults.
VGG: dict[str, Any] = {"depths": "2,2,1", "widths": "8,16,32"}
GHOST: dict[str, Any] = {"ghost-width": 0.5, "ghost-stages": 0}
NETWORK = frozenset({"model", "bn", "squeeze-excite", *VGG, *GHOST})


def build_of(config: Mapping[str, Any], side: int) -> Build:
    """build(mode) -> model for grey images of `side` pixels.

    Keys: model ("vgg", "ghost"), seed, squeeze-excite ("auto": as in the papers, in some of
    Ghost's bottlenecks alone; "on": everywhere; "off"), bn ("group_norm": GroupNorm in place of every
    BatchNorm);
    for VGG depths and widths (numbers joined by commas, or a name: B0, B1, L1; B1); for Ghost
    ghost-width (0.5: half as wide) and ghost-stages (how many of the nine, 0: all).

    Raises
    ------
    ValueError
        A value that is none of these.
    """
    kind = _one_of(config, "model", ("vgg", "ghost"))
    attention = _one_of(config, "squeeze-excite", get_args(Attention))
    norm: Norm = "group_norm" if statistics_of(config) == "group_norm" else "bn"
    seed = whole(config, "seed", 0)
    unused = VGG if kind == "ghost" else GHOST
    refuse_unused(config, unused, f"by model = {kind!r}")
    if kind == "ghost":
        count, most = whole(config, "ghost-stages", GHOST["ghost-stages"]), len(GHOST_STAGES)
        if not 0 <= count <= most:
            raise ValueError(f"ghost-stages must be between 0 (all) and {most}, got {count}")
        width = number(config, "ghost-width", GHOST["ghost-width"], above=0)
        stages = [
            [(k, inner, out, _ratio(attention, r), stride) for k, inner, out, r, stride in stage]
            for stage in GHOST_STAGES[: count or most]
        ]

        def ghost(mode: Mode) -> nn.Module:
            return repopt_ghost(
                width, in_channels=1, mode=mode, seed=seed, norm=norm, stages=stages,
                stem_stride=1 if side < 64 else 2,
            )  # fmt: skip

        return ghost
    depths = _numbers(config, "depths", VGG["depths"], VGG_DEPTHS)
    widths = _numbers(config, "widths", VGG["widths"], VGG_WIDTHS)
    strides = (1, 1 if side < 12 else 2, *[2] * (len(depths) - 1))

    def vgg(mode: Mode) -> nn.Module:
        return repopt_vgg(
            depths, widths, in_channels=1, mode=mode, seed=seed, norm=norm, strides=strides,
            squeeze_excite=attention == "on",
        )  # fmt: skip

    return vgg


def statistics_of(config: Mapping[str, Any]) -> Statistics:
    """The key bn: what becomes of BatchNorm's running statistics.

    "average": they are averaged with the rest; "local": each client keeps its own; "group_norm": the
    network has none.

    Raises
    ------
    ValueError
        Another value, or "group_norm" for the arm that is defined by a BatchNorm a branch.
    """
    found = cast("Statistics", _one_of(config, "bn", get_args(Statistics)))
    if found == "group_norm" and config.get("arm") == "rep":
        raise ValueError(
            "bn = 'group_norm' and arm = 'rep' exclude each other: that arm is a BatchNorm a branch; "
            "take bn = 'average' or 'local'"
        )
    return found


def _ratio(attention: str, paper: float) -> float:
    return {"auto": paper, "on": paper or 0.25, "off": 0.0}[attention]


def _one_of(config: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str:
    return check_choice(key, str(config.get(key, allowed[0])), allowed)


def _numbers(
    config: Mapping[str, Any], key: str, default: str, names: Mapping[str, tuple[int, ...]]
) -> tuple[int, ...]:
    text = str(config.get(key, default))
    if text in names:
        return names[text]
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ValueError(
            f"{key} must be whole numbers joined by commas or one of {sorted(names)}, got {text!r}"
        ) from None
