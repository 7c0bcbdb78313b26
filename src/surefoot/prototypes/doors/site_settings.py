"""What a site goes by: the run's configuration, what the node decides before it, and its limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from surefoot._numerics.checks import check_number
from surefoot.errors import ArgumentError, MissingExtraError, SurefootError, need
from surefoot.prototypes.doors.keys import FIRST_AT_NODE, refuse_unread
from surefoot.prototypes.task import MakePrototypeTask, PrototypeTask

with need("flwr", extra="federated", part="surefoot.prototypes on Flower"):
    from flwr.app import Context

OF_NO_DELTA = 1e-5
"""Delta at which a limit, or an infinite epsilon, is stated where nobody said one."""
Config = Mapping[str, Any]


def settings(context: Context, defaults: Config) -> dict[str, Any]:
    """The run's configuration, and before it what the site decides.

    Raises
    ------
    SurefootError
        The node has a key that nobody would read.
    ValueError
        A limit that is no number, or a delta of the node beside which there is no limit.
    """
    refuse_unread(context.node_config)
    found = {**defaults, **context.run_config}
    own = context.node_config
    found |= {k: own[k] for k in FIRST_AT_NODE if k in own}
    # Not the run's to say: it decides which ledger counts.
    found["own-data"] = "data-path" in own
    # The site's limit cannot be raised by whoever starts the run; nor can the delta at which it is stated,
    # as every epsilon is small at a large one.
    if _given(own, "max-epsilon") and not _given(own, "max-delta"):
        own = {**own, "max-delta": OF_NO_DELTA}
    for key, bounds in (("max-epsilon", {"finite": False}), ("max-delta", {"below": 1})):
        numbers = [
            check_number(key, config[key], above=0, **bounds)
            for config in (found, own)
            if _given(config, key)
        ]
        found[key] = min(numbers, default=None)
    if found["max-epsilon"] is None and _given(own, "max-delta"):
        raise ValueError(
            f"max-delta = {own['max-delta']} in the node's configuration limits nothing by itself: give the "
            "max-epsilon that is stated at it"
        )
    return found


def _given(config: Config, key: str) -> bool:
    return config.get(key, "none") not in (None, "none")


def flag(config: Config, key: str) -> bool:
    """True or false of a configuration; other values are refused by name."""
    given = config.get(key, False)
    if not isinstance(given, bool):
        raise ValueError(f"{key} must be true or false, got {given!r}")
    return given


def made(make: MakePrototypeTask, config: Config, partition: int) -> PrototypeTask:
    """The task of this site; what is wrong with its files stays in its log."""
    try:
        return make(config)
    except MissingExtraError:
        raise
    except Exception as error:
        raise SurefootError(_in_the_log("task", partition, error)) from error


@contextmanager
def own_records(partition: int) -> Iterator[None]:
    """Around what reads records: Flower sends the text of an error to the server, and it may hold them.

    What we say ourselves passes: it names classes, files and settings, and no record.
    """
    try:
        yield
    except Exception as error:
        # An error of an argument tells its value, which is a record's.
        if isinstance(error, SurefootError) and not isinstance(error, ArgumentError):
            raise
        raise SurefootError(_in_the_log("records", partition, error)) from error


def _in_the_log(what: str, partition: int, error: Exception) -> str:
    return (
        f"the {what} of partition {partition} cannot be used ({type(error).__name__}): the log of its node "
        "says why, as the reason may hold records"
    )
