"""Bytes of the one round, in closed form, beside those of federated averaging."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot.prototypes.prototype_set import METHODS, PrototypeSet

FLOAT, LABEL = 4, 8


@checked(nan=True)
@dataclass(frozen=True)
class CommunicationCost:
    """Bytes over all clients.

    Attributes
    ----------
    up
        Prototypes and labels; "cluster_var": their weights and variances too.
    beside
        Class sizes, and weights where the method can do without: what `PrototypeSet.arrays` has beside `up`.
        0 where the classes of each client were not given.
    down
        The adapter to every client, and the head's rows if there are any.
    fedavg_round
        One round of averaging the adapter, up and down.
    """

    up: int
    beside: int
    down: int
    fedavg_round: int

    @property
    def break_even(self) -> float:
        """Rounds of averaging that cost as much as this one round."""
        return (self.up + self.down) / self.fedavg_round


@checked
def comm_cost(
    rows_per_client: Sequence[int],
    d: int,
    method: str = "mean",
    classes: Sequence[int] | int | None = None,
    hidden: int | None = None,
    *,
    basis_dim: int | None = None,
    head_rows: int = 0,
) -> CommunicationCost:
    """Bytes in float32 rows and int64 labels: up = sum_k M_k (4d + 8), down = K 4 |A|.

    Parameters
    ----------
    rows_per_client
        M_k, prototypes of each client.
    d
        Dimension of the embeddings.
    method
        As in `extract_prototypes`: "cluster_var" adds 4 bytes a row and 4d a class, "gauss" 4 k^2 a client.
    classes
        Classes of each client, or one number for all; "cluster_var" needs it.
    hidden
        Of the adapter, by default d // 4.
    basis_dim
        k of "gauss", by default d.
    head_rows
        Classes of a head that is sent to every client once; 0: they have it.

    Raises
    ------
    ValueError
        A number outside its range, or "cluster_var" without classes.
    """
    check_choice("method", method, METHODS)
    given: object = rows_per_client
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(
            f"rows_per_client must hold a whole number for each client, got {rows_per_client!r}"
        )
    rows = [check_number("rows_per_client", m, least=0, whole=True) for m in rows_per_client]
    if not rows:
        raise ValueError("rows_per_client must name at least one client, got none")
    d = check_number("d", d, least=1, whole=True)
    hidden = (
        max(d // 4, 1) if hidden is None else check_number("hidden", hidden, least=1, whole=True)
    )
    head_rows = check_number("head_rows", head_rows, least=0, whole=True)
    k = (
        d
        if basis_dim is None
        else check_number("basis_dim", basis_dim, least=1, most=d, whole=True)
    )
    own = _classes(classes, len(rows))
    up = sum(rows) * (FLOAT * d + LABEL)
    beside = 0 if own is None else LABEL * sum(own)
    if method == "cluster_var":
        if own is None:
            raise ValueError(
                '"cluster_var" sends variances: give classes, how many each client has'
            )
        up += FLOAT * (sum(rows) + d * sum(own))
    elif own is not None:
        beside += FLOAT * sum(rows)
    if method == "gauss":
        up += len(rows) * FLOAT * k * k
    adapter = FLOAT * 2 * d * hidden
    down = len(rows) * (adapter + FLOAT * head_rows * d)
    return CommunicationCost(up, beside, down, 2 * len(rows) * adapter)


def comm_cost_of(sets: Sequence[PrototypeSet]) -> CommunicationCost:
    """The same, of sets of one or several methods."""
    each = [
        comm_cost(
            [len(s)], s.d, s.method, [len(s.counts)],
            basis_dim=None if s.basis is None else s.basis.shape[1],
        )
        for s in sets
    ]  # fmt: skip
    return CommunicationCost(
        *(sum(getattr(c, name) for c in each) for name in ("up", "beside", "down", "fedavg_round"))
    )


def _classes(classes: Sequence[int] | int | None, clients: int) -> list[int] | None:
    if classes is None:
        return None
    given = [classes] * clients if isinstance(classes, int) else list(classes)
    if len(given) != clients:
        raise ValueError(f"classes must be one number a client: {clients}, got {len(given)}")
    return [check_number("classes", c, least=0, whole=True) for c in given]
