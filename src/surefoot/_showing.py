"""How what comes back from a run shows itself: one line as a repr, a small table in a notebook."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from surefoot.record import Record

C = TypeVar("C", bound=type)
LONGEST = 120
# Of the entries, what a line and what a table has.
FEW, MANY = 6, 30


def showing(cls: C) -> C:
    """A class decorator: gives results and ledgers a repr of one line, and what a notebook shows.

    A repr that the class wrote itself stays; the one that `dataclass` generates prints whole arrays and goes.
    The notebook gets the class's own text where it has a `__str__` or a `summary`, else its entries, and the
    certificates where `certificates()` gives some.
    """
    of_dataclass = getattr(cls.__dict__.get("__dataclass_params__"), "repr", False)
    if of_dataclass or "__repr__" not in cls.__dict__:
        # A class is given methods here, which its type does not have.
        cls.__repr__ = _line  # type: ignore[assignment]
    cls._repr_html_ = _html  # type: ignore[attr-defined]
    return cls


def _line(self: Any) -> str:
    said = [f"{name} = {text}" for name, text in entries(self)]
    shown = ", ".join(said[:FEW])
    if len(shown) > LONGEST:
        shown = shown[: LONGEST - 3] + "..."
    elif len(said) > FEW:
        shown += ", ..."
    return f"<{type(self).__name__}{': ' if shown else ''}{shown}>"


def _html(self: Any) -> str:
    from surefoot.report.fragment import result_html

    certificates: Sequence[Any] = ()
    why = ""
    held = getattr(self, "certificates", ())
    if held:
        try:
            certificates = list(held() if callable(held) else held)
        except Exception as error:  # a notebook shows what there is; the call itself raises
            why = f"No certificate: {error}"
    return result_html(
        type(self).__name__, _text(self), list(entries(self))[:MANY], certificates, why
    )


def _text(value: Any) -> str:
    """What it says of itself; nothing where that is its repr or needs to be told more."""
    says: Any = type(value).__str__
    own = says not in (object.__str__, dict.__str__)
    try:
        if hasattr(value, "summary"):
            return str(value.summary())
        return str(value) if own else ""
    except Exception:
        return ""


def entries(value: Any) -> Iterator[tuple[str, str]]:
    """Names and short texts of what a result holds: numbers, words, and of arrays their shape."""
    if dataclasses.is_dataclass(value):
        held = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value) if f.repr}
    else:
        held = {k: v for k, v in vars(value).items() if not k.startswith("_")}
    if isinstance(value, dict):
        yield "entries", str(len(value))
    for name, item in held.items():
        text = _short(item)
        if text:
            yield name, text


def _short(item: Any) -> str:
    if item is None or callable(item):
        return ""
    if isinstance(item, bool) or not isinstance(item, float):
        return _word(item)
    return "" if math.isnan(item) else f"{item:.6g}"


def _word(item: Any) -> str:
    if isinstance(item, Record):
        return f"{len(item.seeds)} seed(s), {len(item.quantities)} quantities"
    shape, dtype = getattr(item, "shape", None), getattr(item, "dtype", None)
    if shape is not None and dtype is not None:
        if math.prod(shape) == 1:
            return _short(item.item())
        return f"{'x'.join(map(str, shape))} of {str(dtype).removeprefix('torch.')}"
    if isinstance(item, (str, bool, int, complex, os.PathLike)):
        text = str(item)
        return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
    if isinstance(item, (list, tuple, set, frozenset, dict)):
        few = len(item) <= 4 and all(isinstance(v, (str, int, float)) for v in item)
        listed = ", ".join(_short(v) for v in item)
        plain = few and not isinstance(item, dict) and len(listed) < LONGEST
        return f"[{listed}]" if plain else f"{len(item)} entries"
    return type(item).__name__
