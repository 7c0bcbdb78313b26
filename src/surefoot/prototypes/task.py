"""What an app of prototypes must say about its problem."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.splits import Rows


class PrototypeTask(Protocol):
    """A problem of several sites: the same on every runtime, and in a loop of one's own."""

    @property
    def encoder_id(self) -> str:
        """Name or hash of the frozen encoder; sites of another one are refused."""
        ...

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the head; () where labels are numbers that all sites share."""
        ...

    def head(self) -> ZeroShotHead:
        """The frozen classifier; only the server asks for it."""
        ...

    def records(self, partition: int, num_partitions: int, classes: tuple[str, ...]) -> Rows:
        """(n, d) embeddings and (n,) classes that a site learns from.

        Parameters
        ----------
        partition, num_partitions
            Which site, of how many.
        classes
            The server's names of the classes: labels are places in it.
        """
        ...

    def held_out(
        self, partition: int, num_partitions: int, classes: tuple[str, ...]
    ) -> Rows | None:
        """Records of the same site that are in no upload: to score, and to attack the upload with.

        Parameters
        ----------
        partition, num_partitions, classes
            As in `records`.

        Returns
        -------
        tuple or None
            Embeddings and classes; None where there are none.
        """
        ...


MakePrototypeTask = Callable[[Mapping[str, Any]], PrototypeTask]
