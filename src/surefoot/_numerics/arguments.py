"""Arguments are held against the annotations of what is called, before it runs."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, overload

from surefoot._numerics.annotations import Rule, rule_of
from surefoot._numerics.shown import shown
from surefoot.errors import ArgumentError

T = TypeVar("T")


@overload
def checked(thing: T, *, nan: bool = False) -> T: ...
@overload
def checked(thing: None = None, *, nan: bool = False) -> Callable[[T], T]: ...
def checked(thing: Any = None, *, nan: bool = False) -> Any:
    """Refuse arguments that a function, or the constructor of a class, cannot take.

    Values are handed on as they came. What an annotation leaves open passes, as does what cannot be resolved
    without an import.

    Parameters
    ----------
    thing
        A function, or a class, whose constructor is then wrapped in place.
    nan
        Whether NaN passes as a number: for what holds measurements.

    Raises
    ------
    ArgumentError
        At the call: an argument is not what its annotation says, is missing, or is unknown.
    """
    if thing is None:
        return lambda other: checked(other, nan=nan)
    if isinstance(thing, type):
        thing.__init__ = _wrapped(thing.__init__, thing.__name__, 1, nan)  # type: ignore[misc]
        return thing
    return _wrapped(thing, thing.__name__, 0, nan)


class _Plan:
    """What the calls of one function are held against; made at the first of them."""

    def __init__(self, function: Any, name: str, skip: int, nan: bool) -> None:
        self.name, self.skip, self.nan = name, skip, nan
        self.module = getattr(inspect.unwrap(function), "__globals__", {})
        # A class of which the generic constructor is given has one of another function.
        kinds = list(inspect.signature(function).parameters.values())[skip:]
        self.of = {
            p.name: self._rule(p) for p in kinds if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }
        places = [p for p in kinds if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self.places = [p.name for p in places]
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
        if len(args) - self.skip > len(self.places) and not self.more:
            raise ArgumentError(
                self.name,
                f"takes at most {len(self.places)} arguments by position, got {len(args) - self.skip}",
            )
        for (name, rule), value in zip(self.in_order, args[self.skip :], strict=False):
            if rule is not None and not rule.fits(value):
                raise ArgumentError(name, f"must be {rule.allowed}, got {shown(value)}")
        given = len(args) - self.skip
        for name, value in kwargs.items():
            if name not in self.of:
                if not self.extra:
                    raise self.unknown(name)
                continue
            rule = self.of[name]
            if rule is not None and not rule.fits(value):
                raise ArgumentError(name, f"must be {rule.allowed}, got {shown(value)}")
        if given + len(kwargs) < len(self.required) or self.extra or kwargs:
            there = self.places[:given]
            for name in self.required:
                if name not in kwargs and name not in there:
                    raise ArgumentError(name, f"is missing: {self.name} must be given it")

    def unknown(self, name: str) -> ArgumentError:
        near = difflib.get_close_matches(name, self.of, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        takes = ", ".join(self.of) or "none"
        return ArgumentError(name, f"is no argument of {self.name}, which takes {takes}{hint}")


def _wrapped(function: Any, name: str, skip: int, nan: bool) -> Any:
    plan: list[_Plan] = []

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not plan:
            plan.append(_Plan(function, name, skip, nan))
        plan[0].check(args, kwargs)
        return function(*args, **kwargs)

    return call
