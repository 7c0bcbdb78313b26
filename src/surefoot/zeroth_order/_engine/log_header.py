"""What the header of a log must hold: looked at before anything of the size that it claims is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, get_args

from surefoot.zeroth_order._engine.settings import Settings
from surefoot.zeroth_order._engine.tensors import Storage

STREAM = "stream"
# Of the rules, beside the settings that all share.
OF_RULES = {"reproject", "betas", "adam_eps"}


def check_header(header: dict[str, Any]) -> None:
    """Refuse a header that lacks something, or whose parts contradict each other.

    Raises
    ------
    ValueError
        Naming what is wrong; the caller names the file.
    """
    for key, (what, fits) in KEYS.items():
        if key not in header:
            raise ValueError(f"its header lacks {key!r}")
        if not fits(header[key]):
            raise ValueError(f"{key!r} in its header must be {what}")
    unknown = set(header["settings"]) - set(Settings().to_dict()) - OF_RULES - {"rank_cap"}
    if unknown:
        raise ValueError(f"its header has a setting {min(unknown)!r}, which no method knows")
    if not ENDS(header.get("end", [0, "0" * 64])):
        raise ValueError("'end' in its header must be [steps, a SHA-256]")
    # Refuses what is out of its range.
    Settings(**{k: v for k, v in header["settings"].items() if k not in OF_RULES})
    steps, groups = header["steps"], header["groups"]
    if sum(group["count"] for group in groups) != len(header["tensors"]):
        raise ValueError("its groups do not hold as many tensors as it names")
    if len(header["storage"]) != len(header["tensors"]):
        raise ValueError("it does not say of every tensor how it was kept")
    for key in ("how", "lr"):
        if header[key] != STREAM and sum(run[0] for run in header[key]) != steps:
            raise ValueError(f"the run lengths of {key!r} do not add up to its {steps} steps")
    if header["lr"] != STREAM and any(len(run[1]) != len(groups) for run in header["lr"]):
        raise ValueError(f"'lr' must hold one rate for each of its {len(groups)} groups")
    if any(t > steps for t in header["folds"]) or any(at >= steps for at, _ in header["changes"]):
        raise ValueError(f"it speaks of steps after its last, {steps}")
    for _, each in header["changes"]:
        if [rank > 0 for rank, _ in each] != [group["rank"] > 0 for group in groups]:
            raise ValueError("'changes' must speak of each group, and leave those of rank 0 there")


def _whole(value: Any, least: int = 0) -> bool:
    return type(value) is int and value >= least


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _list(of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(of, value))


def _row(*of: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, list)
        and len(value) == len(of)
        and all(fits(each) for fits, each in zip(of, value, strict=True))
    )


def _settings(value: Any) -> bool:
    return isinstance(value, dict) and _whole(value.get("num_directions"), 1)


def _group(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == {"rank", "eps", "weight_decay", "count"}
        and _whole(value["rank"])
        and _whole(value["count"], 1)
        and all(_number(value[k]) for k in ("eps", "weight_decay"))
    )


def _word(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _hex(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _rates(value: Any) -> bool:
    return value == STREAM or _list(_row(lambda n: _whole(n, 1), _list(_number)))(value)


KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "method": ("a word", _word),
    "settings": ("settings of a method, num_directions among them", _settings),
    "groups": ("groups with rank, eps, weight_decay and count", _list(_group)),
    "tensors": ("rows [name, shape, dtype]", _list(_row(_word, _list(_whole), _word))),
    "base": ("a SHA-256", _hex),
    "steps": ("a whole number from 0", _whole),
    "folds": ("a list of steps", _list(_whole)),
    "how": (
        "rows [steps, micro-batches, fused, probes]",
        _list(_row(lambda n: _whole(n, 1), _whole, _flag, _whole)),
    ),
    "changes": (
        "rows [step, [[rank, weight decay] of each group]]",
        _list(_row(_whole, _list(_row(_whole, _number)))),
    ),
    "storage": (
        f"a list of {', '.join(get_args(Storage))}",
        _list(lambda value: value in get_args(Storage)),
    ),
    "lr": (f"rows [steps, rates] or {STREAM!r}", _rates),
}
ENDS = _row(_whole, _hex)
