"""The errors a person meets: each one sentence saying what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

OURS = {"surefoot", "torch", "jaxtyping", "beartype", "contextlib", "functools"}
"""Packages in which no reader looks for what a warning is about."""


class SurefootError(Exception):
    """Base of every error that the command line turns into one sentence and exit code 2."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are unpickled by calling their class with the message, which subclasses that
        # compose it do not take: a worker process would then die instead of reporting.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[SurefootError], args: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


def nearest(given: str, known: Iterable[str]) -> str | None:
    """The name that was probably meant, whatever its capitals; None where nothing is near.

    Parameters
    ----------
    given
        What was written.
    known
        The names that there are.
    """
    by_small: dict[str, str] = {}
    for name in known:
        by_small.setdefault(name.lower(), name)
    near = difflib.get_close_matches(given.lower(), by_small, n=1)
    return by_small[near[0]] if near else None


class UnknownNameError(SurefootError, LookupError):
    """A name that is not there; the message lists the ones that are.

    Parameters
    ----------
    kind
        What the name is of, for the sentence: "quantity", "study".
    given
        The name that was asked for; kept as an attribute.
    known
        The names that there are; kept as a sorted list.
    """

    def __init__(self, kind: str, given: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = nearest(given, names)
        hint = f" Did you mean {near!r}?" if near else ""
        there = ", ".join(names) if names else "none"
        super().__init__(f"unknown {kind} {given!r}; there are: {there}.{hint}")
        self.given, self.known = given, names


class MissingExtraError(SurefootError, ImportError):
    """A part of surefoot needs packages that are not installed.

    Parameters
    ----------
    part
        What needs them, for the sentence.
    missing
        The packages, by the names under which they are imported.
    extra
        The extra of surefoot that brings them: `pip install 'surefoot[EXTRA]'`.
    """

    def __init__(self, part: str, missing: str, extra: str) -> None:
        super().__init__(
            f"{part} needs {missing}, which is not installed; run: pip install 'surefoot[{extra}]'"
        )


class ArgumentError(SurefootError, ValueError, TypeError):
    """An argument that cannot be what was given: its name, what is allowed, and what came.

    Parameters
    ----------
    argument
        Its name, as the caller knows it; kept as an attribute.
    said
        The rest of the sentence: "must be positive, got -1"; kept as an attribute.
    """

    def __init__(self, argument: str, said: str) -> None:
        super().__init__(f"{argument} {said}")
        self.argument, self.said = argument, said


@contextmanager
def need(package: str, *, extra: str, part: str | None = None) -> Iterator[None]:
    """Import an optional package inside of this, and a missing one becomes one sentence.

    ```
    with need("flwr", extra="federated"):
        from flwr.app import ArrayRecord
    ```

    Parameters
    ----------
    package
        The package, by the name under which it is imported.
    extra
        The extra of surefoot that brings it.
    part
        What needs it, for the sentence; by default `surefoot[EXTRA]`.

    Raises
    ------
    MissingExtraError
        The package, or one that it imports, is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or package).split(".")[0]
        if missing == "surefoot":
            raise
        raise MissingExtraError(part or f"surefoot[{extra}]", missing, extra) from error


class FileFormatError(SurefootError, ValueError):
    """A file or folder that is not what it should be: truncated, of a newer format, or foreign."""


class WriteError(SurefootError, OSError):
    """A file could not be written: a full disk, a quota, a folder that may not be written to.

    What was there before is as it was. `errno` and `filename` are those of the system.
    """

    def __str__(self) -> str:
        # With an errno, OSError would make a message of its own.
        return str(self.args[0])


class NonFiniteError(SurefootError, ArithmeticError):
    """NaN or infinity in a recorded quantity: the run stops and says where.

    Parameters
    ----------
    quantity
        What is not finite; kept as an attribute, as are the others.
    step
        At which step.
    value
        NaN or an infinity.
    checkpoint
        The last good checkpoint, in words; None: none was kept.
    advice
        What to do, in words.
    """

    def __init__(
        self, quantity: str, step: int, value: float, checkpoint: str | None = None, *,
        advice: str | None = None,
    ) -> None:  # fmt: skip
        good = (
            f"the last good checkpoint is {checkpoint}" if checkpoint else "no checkpoint was kept"
        )
        then = f"; {advice}" if advice else ""
        super().__init__(f"{quantity} is {value} at step {step}; {good}{then}")
        self.quantity, self.step, self.value, self.checkpoint = quantity, step, value, checkpoint


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of whoever called this package, however many frames of torch lie between."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").split(".")[0] in OURS:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
