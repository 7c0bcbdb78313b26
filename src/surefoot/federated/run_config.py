"""Reading a run's configuration: every key is used or refused by name, and every number is one."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from surefoot._numerics.checks import check_number

if TYPE_CHECKING:
    from flwr.app import Context

# What the apps and the strategies read, whatever is trained.
FLOOR = frozenset(
    {"num-server-rounds", "num-partitions", "seed", "out", "fraction", "min-nodes", "node-timeout",
     "round-timeout", "max-examples"}
)  # fmt: skip
# Of apps whose runs can go on from a round.
GOING_ON = frozenset({"checkpoint", "resume"})
RULE = frozenset({"server-rule", "server-lr", "robust"})


def node_of(context: Context) -> tuple[int, int]:
    """Partition of a node, and how many there are; KeyError says how a node is told."""
    try:
        return int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    except KeyError as error:
        raise KeyError(
            f"the node's configuration lacks {error}; start it with "
            '--node-config "partition-id=0 num-partitions=2"'
        ) from None


def whole(config: Mapping[str, Any], key: str, default: int, least: int | None = None) -> int:
    """A whole number of a configuration; ValueError names the key."""
    return check_number(key, config.get(key, default), least=least, whole=True)


def number(
    config: Mapping[str, Any],
    key: str,
    default: float,
    *,
    least: float | None = None,
    above: float | None = None,
) -> float:
    """A finite number of a configuration.

    Parameters
    ----------
    config
        The run's.
    key, default
        Its name, and what it is where it is not given.
    least, above
        The smallest number allowed, or the one that it must be above.

    Raises
    ------
    ValueError
        It is no such number; the key is named.
    """
    return check_number(key, config.get(key, default), least=least, above=above)


def refuse_unknown(config: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse keys that nobody reads.

    Raises
    ------
    ValueError
        All of them are named, and those that there are.
    """
    allowed = sorted(set(known))
    unknown = sorted(set(config) - set(allowed))
    if unknown:
        near = [(key, difflib.get_close_matches(key, allowed, n=1)) for key in unknown]
        hint = "".join(f"; did you mean {found[0]} by {key}?" for key, found in near if found)
        raise ValueError(
            f"unknown keys {', '.join(unknown)}; the keys are {', '.join(allowed)}{hint}"
        )


def refuse_unused(config: Mapping[str, Any], unused: Mapping[str, Any], why: str) -> None:
    """Refuse keys that have no meaning beside the others; at its default a key counts as not given.

    Parameters
    ----------
    config
        The run's.
    unused
        The keys, each with its default.
    why
        What makes them meaningless.

    Raises
    ------
    ValueError
        The key is named.
    """
    for key, default in unused.items():
        if key in config and config[key] != default:
            raise ValueError(f"{key} = {config[key]!r} is not used {why}; leave it out")


def check_config(
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    choices: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Refuse what an app does not know before anything is started.

    Parameters
    ----------
    config
        What was asked for.
    defaults
        tool.flwr.app.config of the app's pyproject.toml: its keys, each with a value of its type. In place of
        "none" or "auto" there may be a number or a switch.
    choices
        tool.surefoot.choices of the same file: the words that a key may have.

    Raises
    ------
    ValueError
        A key that is not there, a value of another type, or another word; all of them are named.
    """
    refuse_unknown(config, defaults)
    wrong = [
        f"{key} must be {_TYPES[type(default)]}, got {config[key]!r}"
        for key, default in defaults.items()
        if key in config and type(default) in _TYPES and not _fits(config[key], default)
    ]
    for key, words in (choices or {}).items():
        if key in config and config[key] not in words:
            near = difflib.get_close_matches(str(config[key]), words, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            wrong.append(f"{key} must be one of {', '.join(words)}, got {config[key]!r}{hint}")
    if wrong:
        raise ValueError("; ".join(wrong))


def value_of(text: str, default: Any) -> str | int | float:
    """What a word of the command line stands for.

    Parameters
    ----------
    text
        The word.
    default
        Of its key; where that is text, and not "none" or "auto", the word stays text.
    """
    if isinstance(default, str) and default not in OPEN:
        return text
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


# Defaults that stand for "not given".
OPEN = ("none", "auto")
_TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _fits(value: Any, default: Any) -> bool:
    if default in OPEN:
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, str):
        return isinstance(value, str)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return whole if isinstance(default, int) else isinstance(value, int | float)
