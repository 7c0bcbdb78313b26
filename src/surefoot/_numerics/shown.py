"""How a value is told in one line of an error: never a page of numbers."""

from __future__ import annotations

from typing import Any

from surefoot._numerics.tensors import hidden

LONGEST = 60


def shown(value: Any) -> str:
    """Its repr where that is one short line; else its type, or the shape and dtype of an array."""
    if hidden(value):
        return "a masked one that hides some"
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None and _many(shape):
        return f"{_kind(value)} of shape {tuple(shape)} and dtype {dtype}"
    own: Any = type(value).__repr__
    if own is object.__repr__:
        return f"an object of type {type(value).__name__}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, (list, tuple, set, frozenset, dict)) and len(value) > LONGEST:
        return f"{_kind(value)} of {len(value)}"
    try:
        text = repr(value)
    except Exception:
        text = ""
    if text and len(text) <= LONGEST and "\n" not in text:
        return text
    if isinstance(value, (str, bytes)):
        return f"{text[: LONGEST - 3]}..."
    if isinstance(value, (list, tuple, set, frozenset, dict)):
        return f"{_kind(value)} of {len(value)}"
    return _kind(value)


def _many(shape: tuple[int, ...]) -> bool:
    size = 1
    for length in shape:
        size *= length
    return size > 4 or len(shape) > 2


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' or name == 'ndarray' else 'a'} {name}"
