"""Checks of arguments: a ValueError that names the argument, what is allowed and what was given."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeVar, cast, overload

import numpy as np
from jaxtyping import Float64

from surefoot._numerics.refusing import refuse
from surefoot._numerics.shown import shown
from surefoot.errors import ArgumentError

T = TypeVar("T")


@overload
def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = ...,
    most: float | None = ...,
    above: float | None = ...,
    below: float | None = ...,
    whole: Literal[False] = ...,
    finite: bool = ...,
) -> float: ...
@overload
def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = ...,
    most: float | None = ...,
    above: float | None = ...,
    below: float | None = ...,
    whole: Literal[True],
    finite: bool = ...,
) -> int: ...
def check_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    whole: bool = False,
    finite: bool = True,
) -> float:
    """One real number within bounds; a bool, a string, NaN and an array of numbers are none.

    Parameters
    ----------
    name : str
        The argument as the caller knows it.
    value
        Anything with one real value: a Python, NumPy or 0-d torch number.
    least, most : float, optional
        The smallest and the largest number allowed.
    above, below : float, optional
        Bounds that are not allowed themselves; at most one bound a side.
    whole : bool
        Whether only a whole number is allowed; 1e6 is one.
    finite : bool
        Whether infinity is refused.

    Returns
    -------
    float or int
        The number, an int where `whole`.

    Raises
    ------
    ValueError
        It is not allowed; the message says what is.
    """
    number = _number(value, whole)
    if number is None or number != number:
        refuse(ArgumentError(name, f"must be a number, got {shown(value)}"))
        return cast(float, value)
    inside = (
        not ((finite or whole) and abs(number) == math.inf)
        and (not whole or number == math.floor(number))
        and (least is None or number >= least)
        and (most is None or number <= most)
        and (above is None or number > above)
        and (below is None or number < below)
    )
    if not inside:
        allowed = _allowed(least, most, above, below, whole, finite)
        refuse(ArgumentError(name, f"must be {allowed}, got {shown(value)}"))
        return cast(float, value)
    return int(number) if whole else float(number)


def check_real(name: str, value: Any) -> None:
    """Refuse what NumPy would change without an error: imaginary parts are dropped, masks taken off.

    Parameters
    ----------
    name : str
        The argument as the caller knows it.
    value
        Anything; what is no array at all is for other checks.

    Raises
    ------
    ValueError
        It is complex, or a mask hides some of it.
    """
    refuse_hidden(name, value)
    try:
        found = value.is_complex() if hasattr(value, "is_complex") else np.iscomplexobj(value)
    except (TypeError, ValueError):
        return
    if found:
        raise ArgumentError(name, f"must be real numbers, got complex ones: {shown(value)}")


def refuse_hidden(name: str, value: Any) -> None:
    """Refuse numbers behind a mask, in a list too: NumPy hands over what the mask hides.

    Raises
    ------
    ValueError
        Some are hidden; a masked array that hides none is as good as any.
    """
    inside = value if isinstance(value, (list, tuple)) else ()
    if np.ma.is_masked(value) or any(map(np.ma.is_masked, inside)):
        raise ArgumentError(
            name,
            "must be an array of numbers, got a masked one that hides some; leave those out, or fill them",
        )


def check_numbers(
    name: str,
    value: Any,
    *,
    ndim: int | None = None,
    nonnegative: bool = False,
    finite: bool = True,
) -> Float64[np.ndarray, "..."]:
    """An array of finite real numbers in float64; bools, words, complex numbers, NaN and infinity are none.

    Nor are numbers behind a mask: NumPy would hand over what the mask hides.

    Parameters
    ----------
    name : str
        The argument as the caller knows it.
    value
        Anything that looks like an array.
    ndim : int, optional
        How many dimensions it must have.
    nonnegative : bool
        Whether numbers below 0 are refused.
    finite : bool
        Whether NaN and infinity are refused.

    Raises
    ------
    ValueError
        It is none; the message says what is wrong.
    """
    refuse_hidden(name, value)
    try:
        found = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except (TypeError, ValueError):
        raise ArgumentError(name, f"must be an array of numbers, got {shown(value)}") from None
    if found.dtype.kind not in "iuf" or (finite and not found.size):
        raise ArgumentError(name, f"must be an array of real numbers, got {shown(value)}")
    found = found.astype(np.float64)
    if ndim is not None and found.ndim != ndim:
        raise ArgumentError(name, f"must have {ndim} dimensions, got shape {found.shape}")
    wrong = (finite & ~np.isfinite(found)) | (nonnegative & (found < 0))
    if wrong.any():
        allowed = "finite and at least 0" if nonnegative else "finite"
        raise ArgumentError(name, f"must be {allowed}, got {found[wrong][0]}")
    return found


@contextmanager
def called(**names: str) -> Iterator[None]:
    """Errors of these arguments under the names that a caller has for them.

    Raises
    ------
    ArgumentError
        One was refused inside, of whatever type that error was.
    """
    try:
        yield
    except ValueError as error:
        said = str(error)
        for inner, outer in names.items():
            # Not wherever the word is: "means" is one of them.
            said = re.sub(rf"\bfor {inner} of shape\b", f"for {outer} of shape", said)
        for inner, outer in names.items():
            if re.match(rf"{inner}\b", said):
                raise ArgumentError(outer, said[len(inner) :].strip()) from None
        raise


def check_choice(name: str, value: Any, allowed: Iterable[T]) -> T:
    """One of the words (or None, or numbers) that are allowed, as it stands there.

    Raises
    ------
    ValueError
        It is none of them; the message lists them.
    """
    there = tuple(allowed)
    for each in there:
        # Of one kind, as True is no 1, and as an array compares to an array.
        if value is each or (isinstance(value, type(each)) and _same(value, each)):
            return each
    listed = ", ".join(map(repr, there))
    refuse(ArgumentError(name, f"must be one of {listed}, got {shown(value)}"))
    return cast(T, value)


def _same(value: Any, each: Any) -> bool:
    return isinstance(value, bool) == isinstance(each, bool) and bool(value == each)


def _number(value: Any, whole: bool) -> int | float | None:
    """The value as a Python number, None where it is not one, or a mask hides it."""
    if np.ma.is_masked(value):
        return None
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, (bool, str, bytes, bytearray)) or getattr(value, "shape", ()) != ():
        return None
    if whole and isinstance(value, int):  # which a double may not hold
        return value
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _allowed(
    least: float | None,
    most: float | None,
    above: float | None,
    below: float | None,
    whole: bool,
    finite: bool,
) -> str:
    kind = "a whole number " if whole else ""
    low, high = least if above is None else above, most if below is None else below
    if low is None and high is None:
        return kind.strip() or ("a finite number" if finite else "a number")
    if low is not None and high is not None:
        if above is None and below is None:
            return f"{kind}between {_shown(low)} and {_shown(high)}"
        if above is not None and below is not None:
            return f"{kind}strictly between {_shown(low)} and {_shown(high)}"
        left, right = "[" if above is None else "(", "]" if below is None else ")"
        return f"{kind}in {left}{_shown(low)}, {_shown(high)}{right}"
    tail = "" if whole or not finite else " and finite"
    if low is not None:
        if above is None:
            return f"{kind}{'of ' * whole}at least {_shown(low)}{tail}"
        return f"{kind}above {_shown(low)}" if whole or low else f"positive{tail}"
    return f"{kind}{'of ' * whole}{'at most' if below is None else 'below'} {_shown(high)}{tail}"


def _shown(bound: Any) -> str:
    return f"{bound:.6g}" if isinstance(bound, float) else str(bound)
