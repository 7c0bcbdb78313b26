"""Arguments are held against the annotations of what is called, before it runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, overload

from surefoot._numerics.annotations import Rule, rule_of
from surefoot._numerics.shown import shown
from surefoot._numerics.tensors import unfinished
from surefoot.errors import ArgumentError

T = TypeVar("T")


@overload
def checked(thing: T, *, nan: bool = False, leave: tuple[str, ...] = ()) -> T: ...
@overload
def checked(
    thing: None = None, *, nan: bool = False, leave: tuple[str, ...] = ()
) -> Callable[[T], T]: ...
def checked(thing: Any = None, *, nan: bool = False, leave: tuple[str, ...] = ()) -> Any:
    """Refuse arguments that a function, or the constructor of a class, cannot take.

    Values are handed on as they came. What an annotation leaves open passes, as does what cannot be resolved
    without an import.

    Parameters
    ----------
    thing
        A function, or a class, whose constructor is then wrapped in place.
    nan
        Whether NaN passes as a number: for what holds measurements.
    leave
        Arguments of which the function itself has more to say.

    Raises
    ------
    ArgumentError
        At the call: arguments are not what their annotations say, are missing, or unknown; all are named.
    """
    if thing is None:
        return lambda other: checked(other, nan=nan, leave=leave)
    if isinstance(thing, type):
        # mypy knows no constructor that is put in place of another.
        thing.__init__ = _wrapped(thing.__init__, thing.__name__, 1, nan, leave)  # type: ignore[misc]
        return thing
    return _wrapped(thing, thing.__name__, 0, nan, leave)


class _Plan:
    """What the calls of one function are held against; made at the first of them."""

    def __init__(
        self, function: Any, name: str, skip: int, nan: bool, leave: tuple[str, ...]
    ) -> None:
        self.name, self.skip, self.nan = name, skip, nan
        self.module = getattr(inspect.unwrap(function), "__globals__", {})
        # A class of which the generic constructor is given has one of another function.
        kinds = list(inspect.signature(function).parameters.values())[skip:]
        self.of = {
            p.name: self._rule(p) for p in kinds if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        places = [p for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.places = [p.name for p in places]
        for left in leave:
            self.of[left] = None
        self.in_order = tuple((p.name, self.of[p.name]) for p in places)
        self.required = [p.name for p in kinds if p.default is p.empty and p.name in self.of]
        self.extra = any(p.kind is p.VAR_KEYWORD for p in kinds)
        self.more = any(p.kind is p.VAR_POSITIONAL for p in kinds)

    def _rule(self, p: inspect.Parameter) -> Rule | None:
        rule = None if p.annotation is p.empty else rule_of(p.annotation, self.module, self.nan)
        default = p.default
        if rule is None or default is p.empty:
            return rule
        # A default is allowed whatever the annotation says.
        fits = rule.fits
        return Rule(lambda v: v is default or fits(v), rule.allowed)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise unless all fit."""
        given = len(args) - self.skip
        if given > len(self.places) and not self.more:
            raise ArgumentError(
                self.name,
                f"takes at most {len(self.places)} arguments by position, got {given}",
            )
        for (_, rule), value in zip(self.in_order, args[self.skip :], strict=False):
            if rule is not None and not rule.fits(value):
                raise self.refused(args, kwargs)
        for name, value in kwargs.items():
            if name not in self.of:
                if not self.extra:
                    raise self.unknown(name)
                continue
            rule = self.of[name]
            if rule is not None and not rule.fits(value):
                raise self.refused(args, kwargs)
        if given < len(self.required):
            there = self.places[:given]
            for name in self.required:
                if name not in kwargs and name not in there:
                    raise ArgumentError(name, f"is missing: {self.name} must be given it")

    def refused(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArgumentError:
        """All that do not fit, in one sentence."""
        given = dict(zip(self.places, args[self.skip :], strict=False)) | kwargs
        found = [
            (name, f"must be {rule.allowed}, got {shown(given[name])}{unfinished(given[name])}")
            for name, rule in self.of.items()
            if rule is not None and name in given and not rule.fits(given[name])
        ]
        (first, said), *others = found
        return ArgumentError(first, "; ".join([said, *(" ".join(other) for other in others)]))

    def unknown(self, name: str) -> ArgumentError:
        near = difflib.get_close_matches(name, self.of, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        takes = ", ".join(self.of) or "none"
        return ArgumentError(name, f"is no argument of {self.name}, which takes {takes}{hint}")


def _wrapped(function: Any, name: str, skip: int, nan: bool, leave: tuple[str, ...]) -> Any:
    plan: list[_Plan] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not plan:
            plan.append(_Plan(function, name, skip, nan, leave))
        plan[0].check(args, kwargs)
        return function(*args, **kwargs)

    return call
