"""Arguments of a command line: all that is wrong with it is said at once, under the flags."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

from surefoot._numerics.refusing import gathered
from surefoot.errors import ArgumentError, SurefootError

T = TypeVar("T")


def parsed(parse: Callable[[], T], kinds: Any = ()) -> T:
    """What a parser makes of the words, or one error with all that its checks found.

    Parameters
    ----------
    parse
        Makes the command; the checks of its `__post_init__` are gathered meanwhile.
    kinds
        The dataclasses of which it may be made, whose fields are the flags.

    Raises
    ------
    SurefootError
        Something is wrong.
    """
    made: Any = None
    with gathered() as faults:
        try:
            made = parse()
        except ArgumentError as error:
            faults.append(error)
        except (SystemExit, ValueError, TypeError, ArithmeticError):
            # What came of a value that is refused already is not worth a second sentence.
            if not faults:
                raise
    if faults:
        names = dict(flags(made if made is not None else kinds))
        raise SurefootError("; ".join(dict.fromkeys(flagged(str(f), names) for f in faults)))
    return cast(T, made)


def called(command: Callable[[], int]) -> int:
    """Run a command; an error that begins with an argument begins with its flag.

    Raises
    ------
    SurefootError
        As the command does.
    """
    try:
        return command()
    except SurefootError as error:
        said = flagged(str(error), dict(flags(command)))
        if said == str(error):
            raise
        raise SurefootError(said) from error


def flagged(said: str, names: Mapping[str, str]) -> str:
    """A sentence under the flag of the argument that it begins with, where there is one."""
    first = re.match(r"[A-Za-z_]\w*(?= )", said)
    return said if first is None else names.get(first[0], first[0]) + said[first.end() :]


def flags(of: Any) -> Iterator[tuple[str, str]]:
    """(name of an argument, flag) of a dataclass or what it made, those within it, and its other names.

    `ARGUMENTS` of a command says for what arguments of the library its flags stand: noise_multiplier, sigma.
    """
    if isinstance(of, (tuple, list)):
        for each in of:
            yield from flags(each)
    if not dataclasses.is_dataclass(of):
        return
    for f in dataclasses.fields(of):
        inner = getattr(of, f.name, None) if not isinstance(of, type) else f.type
        if dataclasses.is_dataclass(inner):
            yield from flags(inner)
            continue
        # A word that stands for itself has no flag: the name in capitals, as the help shows it.
        plain = "Positional" in str(f.type)
        flag = f.name.upper() if plain else "--" + f.name.replace("_", "-")
        yield f.name, flag
    for name, own in getattr(of, "ARGUMENTS", {}).items():
        yield name, "--" + own.replace("_", "-")
