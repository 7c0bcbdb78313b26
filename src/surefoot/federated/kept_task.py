"""One task kept between the messages of a node, so that its model and data are not built every round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class KeptTask(Generic[T]):
    """The task of the last message, for the next one of the same run and configuration.

    A task knows neither its partition nor its round, so several partitions in one process share it. It is
    taken out while it trains: a second message at that moment builds another, and one whose training failed
    is not put back. At most one is held.

    Parameters
    ----------
    make_task
        As in `make_client_app`.
    """

    def __init__(self, make_task: Callable[[Mapping[str, Any]], T]) -> None:
        self.make_task = make_task
        self._held: list[tuple[object, T]] = []

    @contextmanager
    def of(self, run: int, config: Mapping[str, Any]) -> Iterator[T]:
        """The task of a run's configuration, to train with."""
        # True, 1 and 1.0 are equal, and settings of a task all the same.
        key = (run, tuple((k, type(v), v) for k, v in sorted(config.items())))
        held = []
        with suppress(IndexError):
            held.append(self._held.pop())
        there = [task for before, task in held if before == key]
        del held  # before the next is built: two of them may not fit
        task = there[0] if there else self.make_task(config)
        yield task
        self._held[:] = [(key, task)]

    def __reduce__(self) -> tuple[Any, ...]:
        # An app that travels to another process takes no model and no data along.
        return KeptTask, (self.make_task,)
