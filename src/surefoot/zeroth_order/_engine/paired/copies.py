"""The copies that one forward holds: rows of copy 0 first, then those of copy 1, along dimension 0."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

PLAIN = (str, bytes, int, float, bool, type(None), torch.dtype, torch.device)


class Unpaired(Exception):
    """Copies cannot share this forward; the message is the reason."""


class NotNow(Unpaired):
    """They cannot share the present forward; another one may be otherwise."""


DRAWS = (
    "the forward draws random numbers (dropout), which would differ between the copies: call "
    "model.eval() first"
)


class Copies:
    """How many copies the present forward holds.

    Attributes
    ----------
    k
        Copies that are present; 0 outside of a paired forward.
    lo
        The first of them: a module that is called once a copy sees that copy alone.
    rows
        Rows of one copy.
    apart
        Whether a module is called once a copy at present.
    """

    def __init__(self) -> None:
        self.k = self.lo = self.rows = 0
        self.apart = False

    def cut(self, stacked: Tensor) -> Tensor:
        """Of something stacked over all copies, the part of those that are present."""
        return stacked if stacked.shape[0] == self.k else stacked[self.lo : self.lo + self.k]

    def holds(self, x: Tensor) -> bool:
        """Whether dimension 0 of a tensor holds the rows of all present copies."""
        return self.k == 1 or (x.ndim > 1 and x.shape[0] % (self.k * self.rows) == 0)

    def are_copies(self, ids: Tensor) -> bool:
        """Whether an index is that of one copy, as often as there are copies."""
        if not ids.ndim or ids.shape[0] % (self.k * self.rows):
            return False
        each = ids.reshape(self.k, -1)
        return bool((each == each[:1]).all())

    def spread(self, y: Tensor) -> Tensor:
        """What one row, or no row, stands for in every row, as the rows of all present copies.

        Raises
        ------
        Unpaired
            If its batch is not dimension 0.
        """
        if y.ndim > 2 and y.shape[0] != 1:
            raise Unpaired(
                f"a module returns {tuple(y.shape)}, whose dimension 0 does not hold the "
                f"{self.k} x {self.rows} rows of the batch"
            )
        alone = y if y.ndim > 2 else y.unsqueeze(0)
        return alone.expand(self.k * self.rows, *alone.shape[1:]).contiguous()


def leaves(batch: Any) -> Iterator[Any]:
    """What a batch holds, containers apart."""
    if isinstance(batch, Mapping):
        for each in batch.values():
            yield from leaves(each)
    elif isinstance(batch, (list, tuple)):
        for each in batch:
            yield from leaves(each)
    else:
        yield batch


def rows_of(batch: Any) -> int:
    """The leading dimension that most tensors of a batch share.

    Raises
    ------
    Unpaired
        If the batch has no rows, or holds what cannot be repeated.
    """
    strange = next((x for x in leaves(batch) if not isinstance(x, (Tensor, *PLAIN))), None)
    if strange is not None:
        raise Unpaired(f"the batch holds a {type(strange).__name__}, which cannot be repeated")
    sizes = Counter(x.shape[0] for x in leaves(batch) if isinstance(x, Tensor) and x.ndim)
    if not sizes or not sizes.most_common(1)[0][0]:
        raise Unpaired("the batch holds no tensor with rows")
    return sizes.most_common(1)[0][0]


def mapped(batch: Any, of: Callable[[Tensor], Tensor]) -> Any:
    """The same batch with something else in place of each tensor."""
    if isinstance(batch, Tensor):
        return of(batch)
    if isinstance(batch, Mapping):
        found: Any = {} if type(batch) is dict else copy.copy(batch)
        for key, each in list(batch.items()):
            found[key] = mapped(each, of)
        return found
    if isinstance(batch, (list, tuple)):
        inside = [mapped(each, of) for each in batch]
        return type(batch)(*inside) if hasattr(batch, "_fields") else type(batch)(inside)
    return batch


def repeated(batch: Any, k: int, rows: int) -> Any:
    """A batch with every tensor of that many rows repeated k times, copy after copy."""

    def repeat(x: Tensor) -> Tensor:
        return x.repeat(k, *[1] * (x.ndim - 1)) if x.ndim and x.shape[0] == rows else x

    return mapped(batch, repeat)


def form_of(batch: Any, k: int, rows: int) -> tuple[Any, ...]:
    """What must have been checked before copies are trusted: dimensions, and sizes that could be mistaken."""
    tensors = [x for x in leaves(batch) if isinstance(x, Tensor)]
    alike = any(n == rows or n % (k * rows) == 0 for x in tensors for n in x.shape[1:])
    # With fewer rows a tensor of the model's own may be taken for one with the rows of all copies.
    return (k, rows, tuple(x.ndim for x in tensors), alike)
