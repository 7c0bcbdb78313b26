"""An annotation as a rule that refuses what is surely wrong; what it does not decide passes.

Names that a module imports for type checkers alone are looked up when a value is held against them, in what
is loaded already: nothing is imported for a check.
"""

from __future__ import annotations

import ast
import builtins
import collections.abc
import enum
import inspect
import math
import os
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin

from surefoot._numerics.tensors import array_rule, hidden, is_array, is_tensor, kind_of

PLAIN = (type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset,
         range)  # fmt: skip
"""Types whose values are no object of another library."""
LOOKED_AT = 64
"""Elements of a sequence that are held against its annotation."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Whether a value fits, and the words for what does."""

    fits: Callable[[Any], bool]
    allowed: str


@dataclass(frozen=True, slots=True)
class Later:
    """A class that is known by name only."""

    module: str
    name: str

    def found(self) -> Any:
        """The class, None where its module is not loaded, so that there can be none of its kind."""
        return getattr(sys.modules.get(self.module), self.name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        whole = f"{self.module}.{self.name}"
        return Later(
            whole if whole in sys.modules or self.name[:1].islower() else self.module, name
        )

    def __getitem__(self, item: Any) -> Any:
        return Any

    def __or__(self, other: Any) -> Any:
        return Either((self, other))

    def __ror__(self, other: Any) -> Any:
        return Either((other, self))

    def __call__(self) -> None:
        """Typing asks of a form that it can be called."""


@dataclass(frozen=True, slots=True)
class Either:
    """A union with a class that is known by name only."""

    members: tuple[Any, ...]

    def __or__(self, other: Any) -> Any:
        return Either((*self.members, other))

    def __ror__(self, other: Any) -> Any:
        return Either((other, *self.members))


class _Names(dict[str, Any]):
    """A module's names, and those that it imports for type checkers."""

    def __init__(self, module: dict[str, Any]) -> None:
        super().__init__()
        self.module = module

    def __missing__(self, name: str) -> Any:
        if name in self.module:
            return self.module[name]
        if hasattr(builtins, name):
            return getattr(builtins, name)
        later = imported_for_types(self.module.get("__name__", "")).get(name)
        if later is None:
            raise NameError(name)
        found = later.found()
        if found is None and f"{later.module}.{later.name}" in sys.modules:
            return sys.modules[f"{later.module}.{later.name}"]
        return later if found is None else found


@cache
def imported_for_types(module: str) -> dict[str, Later]:
    """What stands under `if TYPE_CHECKING` in a module."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (KeyError, OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, Later] = {}
    for node in tree.body:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for line in node.body:
                if isinstance(line, ast.ImportFrom) and line.module and not line.level:
                    found |= {a.asname or a.name: Later(line.module, a.name) for a in line.names}
                elif isinstance(line, ast.Import):
                    for a in line.names:
                        above, _, name = a.name.rpartition(".")
                        found[a.asname or a.name] = Later(above or a.name, name)
    return found


def rule_of(annotation: Any, module: dict[str, Any], nan: bool = False) -> Rule | None:
    """The rule of an annotation, or of the text of one.

    Parameters
    ----------
    annotation
        A type, or its text as `from __future__ import annotations` leaves it.
    module
        The names of the module that it stands in.
    nan
        Whether NaN is a number: it is in what was measured.

    Returns
    -------
    Rule or None
        None where everything passes.
    """
    if isinstance(annotation, str):
        try:
            # Source of this package, which Python itself would evaluate.
            annotation = eval(annotation, {"__builtins__": {}}, _Names(module))
        except Exception:
            return None
    try:
        return _rule(annotation, module, nan)
    except (AttributeError, TypeError, RecursionError):
        return None


def _rule(of: Any, module: dict[str, Any], nan: bool) -> Rule | None:
    if isinstance(of, (str, typing.ForwardRef)):
        return rule_of(of if isinstance(of, str) else of.__forward_arg__, module, nan)
    if of is Any:
        return Rule(_unhidden, "an array that hides nothing (leave out what is hidden, or fill it)")
    if of is None or of is type(None):
        return Rule(lambda v: v is None, "None")
    if isinstance(of, Later):
        return Rule(lambda v: _is_later(v, of), f"a {of.name}")
    if isinstance(of, Either):
        return _union(of.members, module, nan)
    if hasattr(of, "array_type") and hasattr(of, "dims"):
        return Rule(*array_rule(of, nan))
    origin, args = get_origin(of), get_args(of)
    if origin in (Union, types.UnionType):
        return _union(args, module, nan)
    if origin is typing.Annotated:
        return _rule(args[0], module, nan)
    if origin is typing.Literal:
        return _words(args)
    if origin in (type, None) and of in SIMPLE:
        return SIMPLE_NAN if nan and of is float else SIMPLE[of]
    if origin is type or of is type:
        return Rule(lambda v: isinstance(v, type), "a class")
    if isinstance(origin, type) or of in CONTAINERS:
        return _container(origin if isinstance(origin, type) else of, args, module, nan)
    return _class(of) if isinstance(of, type) else None


def _unhidden(value: Any) -> bool:
    return not hidden(value)


def _device(value: Any, device: Any) -> bool:
    try:
        return isinstance(value, device) or bool(isinstance(value, str) and device(value))
    except RuntimeError:
        return False


def _union(members: tuple[Any, ...], module: dict[str, Any], nan: bool) -> Rule | None:
    devices = [
        m for m in members if getattr(m, "__module__", "") == "torch" and m.__name__ == "device"
    ]
    if devices and str in members:
        kept = tuple(m for m in members if m not in (devices[0], str))
        named = Rule(lambda v: _device(v, devices[0]), 'a device of torch, such as "cpu"')
        rest = _union(kept, module, nan) if kept else None
        if rest is None:
            return named
        return Rule(lambda v: rest.fits(v) or named.fits(v), f"{named.allowed} or {rest.allowed}")
    rules = [_rule(m, module, nan) for m in members]
    known = [r for r in rules if r is not None]
    if len(known) < len(rules):
        return None
    tests = tuple(r.fits for r in known)
    allowed = " or ".join(dict.fromkeys(r.allowed for r in known))
    if len(tests) == 2:
        one, two = tests
        return Rule(lambda v: one(v) or two(v), allowed)
    return Rule(lambda v: any(t(v) for t in tests), allowed)


def _words(words: tuple[Any, ...]) -> Rule:
    def fits(value: Any) -> bool:
        kind = isinstance(value, bool)
        return any(
            value is w
            or (isinstance(value, type(w)) and isinstance(w, bool) == kind and value == w)
            for w in words
        )

    listed = ", ".join(map(repr, words))
    return Rule(fits, f"one of {listed}" if len(words) > 1 else listed)


def _number(value: Any, nan: bool = False) -> bool:
    kind = type(value)
    if kind is float:
        return nan or value == value
    if kind is int:
        return True
    if isinstance(value, (bool, str, bytes, bytearray, complex)) or hidden(value):
        return False
    if getattr(value, "shape", ()) != () or (kind_of(value) or "f") not in "fiu":
        return False
    try:
        number = float(value)
    except OverflowError:
        return True
    except (TypeError, ValueError, RuntimeError):
        return False
    return nan or number == number


def _whole(value: Any) -> bool:
    # 1e6 is a whole number; who needs an int makes one of it.
    return type(value) is int or (
        _number(value) and (isinstance(value, int) or abs(float(value)) != math.inf)
        and float(value) % 1 == 0
    )  # fmt: skip


def _path(value: Any) -> bool:
    return isinstance(value, os.PathLike)


def _flag(value: Any) -> bool:
    return isinstance(value, bool) or (
        is_array(value) and kind_of(value) == "b" and value.shape == ()
    )


SIMPLE: dict[Any, Rule] = {
    float: Rule(_number, "a number"),
    int: Rule(_whole, "a whole number"),
    bool: Rule(
        lambda v: isinstance(v, bool) or (is_array(v) and kind_of(v) == "b" and v.shape == ()),
        "True or False",
    ),
    str: Rule(lambda v: isinstance(v, str), "a string"),
    bytes: Rule(lambda v: isinstance(v, (bytes, bytearray)), "bytes"),
}
SIMPLE_NAN = Rule(lambda v: _number(v, True), "a number or NaN")


def _sequence(value: Any) -> bool:
    plain = isinstance(value, (str, bytes, bytearray, dict, set, frozenset))
    return not plain and hasattr(value, "__len__") and hasattr(value, "__getitem__") and (
        getattr(value, "shape", None) != ()
    )  # fmt: skip


def _mapping(value: Any) -> bool:
    return hasattr(value, "keys") and hasattr(value, "__getitem__")


def _iterable(value: Any) -> bool:
    # A 0-d array has the method and refuses.
    return (
        not isinstance(value, (str, bytes, bytearray))
        and (hasattr(value, "__iter__") or hasattr(value, "__getitem__"))
        and getattr(value, "shape", None) != ()
        and not isinstance(value, type)
    )


CONTAINERS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    list: (_sequence, "a list"),
    tuple: (_sequence, "a tuple"),
    collections.abc.Sequence: (_sequence, "a sequence"),
    dict: (_mapping, "a dict"),
    collections.abc.Mapping: (_mapping, "a mapping"),
    collections.abc.MutableMapping: (_mapping, "a mapping"),
    collections.abc.Iterable: (_iterable, "an iterable"),
    collections.abc.Iterator: (lambda v: hasattr(v, "__next__"), "an iterator"),
    collections.abc.Callable: (callable, "callable"),
    set: (_iterable, "a set"),
    frozenset: (_iterable, "a set"),
}


MANY = {"a number": "of numbers", "a whole number": "of whole numbers", "a string": "of strings",
        "a number or NaN": "of numbers"}  # fmt: skip


def _container(of: Any, args: tuple[Any, ...], module: dict[str, Any], nan: bool) -> Rule | None:
    if of not in CONTAINERS:
        return _class(of)
    holds, words = CONTAINERS[of]
    if of is collections.abc.Callable or not args:
        return Rule(holds, words)
    if of is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return _tuple(args, module, nan)
    inner = _rule(args[-1] if holds is _mapping else args[0], module, nan)
    # What an iterator yields is gone once it was looked at.
    if inner is None or of is collections.abc.Iterator:
        return Rule(holds, words)
    looked = (list, tuple) if holds is not _mapping else (dict,)

    def fits(value: Any) -> bool:
        if not holds(value):
            return False
        if isinstance(value, looked):
            values = list(value.values()) if isinstance(value, dict) else value
            return all(inner.fits(v) for v in values[:LOOKED_AT])
        return not (is_array(value) and _of_another_kind(value, inner))

    return Rule(fits, f"{words} {MANY.get(inner.allowed, f'of which each is {inner.allowed}')}")


def _of_another_kind(value: Any, inner: Rule) -> bool:
    """Whether an array in place of a sequence has elements that do not fit."""
    if value.ndim != 1 or value.dtype.kind == "O":
        return False
    return not all(inner.fits(v) for v in value[:LOOKED_AT])


def _tuple(args: tuple[Any, ...], module: dict[str, Any], nan: bool) -> Rule:
    rules = [_rule(a, module, nan) for a in args]

    def fits(value: Any) -> bool:
        return (
            _sequence(value)
            and len(value) == len(rules)
            and all(r is None or r.fits(v) for r, v in zip(rules, value, strict=True))
        )

    each = list(dict.fromkeys("anything" if r is None else r.allowed for r in rules))
    of = f"of which each is {each[0]}" if len(each) == 1 else f"({', '.join(each)})"
    return Rule(fits, f"a tuple of {len(rules)}" + ("" if each == ["anything"] else f" {of}"))


def _class(of: Any) -> Rule | None:
    if of is object or of is inspect.Parameter.empty or of is Any:
        return None
    if of.__module__ == "pathlib":
        return Rule(_path, "a path")
    name = of.__name__
    words = f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"
    if of.__module__ == "torch" and name == "Tensor":
        return Rule(is_tensor, "a tensor")
    if of.__module__ == "numpy" and name == "ndarray":
        return Rule(lambda v: _sequence(v) or hasattr(v, "__array__"), "an array")
    if getattr(of, "_is_protocol", False):
        methods = _public(of)
        if "__call__" in methods:
            return Rule(callable, f"{words}: callable")
        has = ", ".join(methods)
        return Rule(
            lambda v: not _plain(v) and all(hasattr(v, m) for m in methods), f"{words} (with {has})"
        )
    if issubclass(of, enum.Enum):
        # By its value as well, which the function turns into a member.
        return Rule(lambda v: isinstance(v, (of, str)), words)
    if of.__module__.split(".")[0] in ("surefoot", "builtins"):
        return Rule(lambda v: isinstance(v, of), words)
    # Of another library: what does as one may take its place, but no plain value does.
    return Rule(lambda v: _of_other(v, of), words)


def _of_other(value: Any, of: Any) -> bool:
    try:
        if isinstance(value, of):
            return True
    except TypeError:
        return not _plain(value)
    if _plain(value):
        return False
    methods = _public(of)
    return not methods or any(hasattr(value, m) for m in methods)


@cache
def _public(of: Any) -> tuple[str, ...]:
    """What a class of another library, or a protocol, offers."""
    own = [c for c in of.__mro__ if c.__module__ not in ("builtins", "typing", "abc")]
    named = {n for c in own for n in (*vars(c), *vars(c).get("__annotations__", {}))}
    called = ["__call__"] if any("__call__" in vars(c) for c in own) else []
    return (*called, *sorted(n for n in named if not n.startswith("_")))


def _is_later(value: Any, of: Later) -> bool:
    found = of.found()
    if found is None:
        return not _plain(value)
    if not isinstance(found, type):
        return True
    rule = _class(found)
    return rule is None or rule.fits(value)


def _plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or type(value) is object or is_array(value) or is_tensor(value)
