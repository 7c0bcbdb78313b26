"""Who holds which examples, who takes part in a round, and which seed each draw has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Shaped

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.seeds import seed_for as seed_for

MOST = 10**6


@checked
def lda_partition(
    labels: Int[np.ndarray, " n"], num_partitions: int, alpha: float, seed: int = 0
) -> list[Int[np.ndarray, " _"]]:
    """Disjoint index arrays that together are all indices, their label mixtures drawn from Dir(alpha).

    For every class p ~ Dir(alpha 1_K) over the K partitions cuts the shuffled examples of that class by
    cumulative p [the authors' code, after arXiv 1909.06335]. Small alpha: few classes a partition;
    alpha 1e5: about IID. A partition may come out empty.

    Parameters
    ----------
    labels
        The class of each example.
    num_partitions
        K.
    alpha
        Concentration of the Dirichlet law, positive.
    seed
        Of the draws.

    Returns
    -------
    list
        K arrays of indices, each ascending.

    Raises
    ------
    ValueError
        No partition, or an alpha that is not positive and finite.
    """
    num_partitions, seed = _check(num_partitions, seed)
    alpha = check_number("alpha", alpha, above=0)
    labels = _named("labels", labels)
    generator = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in range(num_partitions)]
    for label in np.unique(labels):
        index = generator.permutation(np.flatnonzero(labels == label))
        shares = generator.dirichlet(np.full(num_partitions, alpha))
        cuts = (np.cumsum(shares)[:-1] * len(index)).round().astype(int)
        for part, piece in zip(parts, np.split(index, cuts), strict=True):
            part.append(piece)
    return [np.sort(np.concatenate(p)) if p else np.empty(0, np.int64) for p in parts]


@checked
def domain_partition(
    domains: Shaped[np.ndarray, " n"], num_partitions: int, seed: int = 0
) -> list[Int[np.ndarray, " _"]]:
    """Partitions that hold one domain each: domains in sorted order, shared out evenly.

    With as many partitions as domains, partition k holds the k-th domain; with more, a domain's shuffled
    examples are split between its partitions k, k + D, k + 2 D, ...

    Parameters
    ----------
    domains
        The domain of each example.
    num_partitions
        At least as many as there are domains.
    seed
        Of the shuffles.

    Raises
    ------
    ValueError
        Fewer partitions than domains.
    """
    num_partitions, seed = _check(num_partitions, seed)
    domains = _named("domains", domains)
    names = np.unique(domains)
    if num_partitions < len(names):
        raise ValueError(f"{len(names)} domains need as many partitions, got {num_partitions}")
    generator = np.random.default_rng(seed)
    parts: list[np.ndarray] = [np.empty(0, np.int64)] * num_partitions
    for d, name in enumerate(names):
        holders = list(range(d, num_partitions, len(names)))
        index = generator.permutation(np.flatnonzero(domains == name))
        for holder, piece in zip(holders, np.array_split(index, len(holders)), strict=True):
            parts[holder] = np.sort(piece)
    return parts


@checked
def draw_partitions(
    seed: int, server_round: int, partitions: Sequence[int], fraction: float
) -> list[int]:
    """The partitions of a round, ascending: max(1, round(fraction K)) of them, by (seed, round) alone.

    Parameters
    ----------
    seed, server_round
        What the draw depends on.
    partitions
        All K of them.
    fraction
        In (0, 1].

    Raises
    ------
    ValueError
        A fraction outside of that, a seed or a round that is no whole number, no partitions,
        or one of them twice.
    """
    fraction = check_number("fraction", fraction, above=0, most=1)
    seed = check_number("seed", seed, whole=True)
    server_round = check_number("server_round", server_round, least=0, whole=True)
    if isinstance(partitions, str | bytes) or not np.iterable(partitions) or not len(partitions):
        raise ValueError(f"partitions must be a sequence of whole numbers, got {partitions!r}")
    partitions = [check_number("partitions", p, least=0, whole=True) for p in partitions]
    if len(set(partitions)) < len(partitions):
        raise ValueError(f"partitions must differ from each other, got {partitions}")
    count = max(1, round(fraction * len(partitions)))
    generator = np.random.default_rng(seed_for(seed, server_round, "draw"))
    chosen = generator.permutation(sorted(partitions))[:count]
    return sorted(int(p) for p in chosen)


def _check(num_partitions: int, seed: int) -> tuple[int, int]:
    return (
        check_number("num_partitions", num_partitions, least=1, most=MOST, whole=True),
        check_number("seed", seed, least=0, whole=True),
    )


def _named(name: str, values: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """One name an example: words or real numbers, of which NaN is none."""
    found = np.asarray(values)
    kind = found.dtype.kind
    if found.ndim != 1 or kind not in "biufUS" or (kind == "f" and np.isnan(found).any()):
        raise ValueError(f"{name} must be one word or number an example, got {values!r}")
    return found
