"""Each domain's records in three parts: to learn from, to choose by, to report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number, check_numbers

Rows = tuple[Float[Tensor, "_ d"], Int[Tensor, " _"]]
"""Embeddings and classes."""


@checked
@dataclass(frozen=True, eq=False)
class Domain:
    """Embeddings and classes of one client.

    Attributes
    ----------
    name
        Of the domain.
    train
        (n, d) embeddings and (n,) classes that the client learns from, and uploads prototypes of.
    val
        What choices are made by.
    test
        What is reported.
    """

    name: str
    train: Rows
    val: Rows
    test: Rows


@checked
def split_domains(
    z: Float[Tensor, "N d"],
    labels: Int[np.ndarray, " N"],
    domains: Int[np.ndarray, " N"],
    names: Sequence[str],
    seed: int = 0,
) -> list[Domain]:
    """70 / 30 of each domain, stratified by class, then 20 % of the 70 for choices.

    Parameters
    ----------
    z
        Embeddings of all domains.
    labels, domains
        Class and domain of each.
    names
        Of the domains.
    seed
        The cuts use seed + 1.

    Raises
    ------
    ValueError
        A class of a domain has fewer than 4 records, too few for three parts.
    """
    from sklearn.model_selection import train_test_split

    check_numbers("z", z, ndim=2)
    kinds = {"labels": np.asarray(labels), "domains": np.asarray(domains)}
    for what, given in kinds.items():
        if given.dtype.kind not in "iu" or given.shape != (len(z),):
            raise ValueError(
                f"{what} must be a whole number for each of the {len(z)} rows of z, got "
                f"{given.dtype} of shape {given.shape}"
            )
    labels, domains = kinds.values()
    seed = check_number("seed", seed, least=0, whole=True)
    if (
        isinstance(names, str)
        or not isinstance(names, Iterable)
        or not all(isinstance(n, str) for n in names)
    ):
        raise ValueError(f"names must be one string a domain, got {names!r}")
    found = []
    for i, name in enumerate(names):
        rows = np.flatnonzero(domains == i)
        present, counts = np.unique(labels[rows], return_counts=True)
        if len(counts) == 0 or counts.min() < 4:
            least = (
                "none"
                if len(counts) == 0
                else f"{counts.min()} of class {present[counts.argmin()]}"
            )
            raise ValueError(
                f"domain {name!r} must have at least 4 records of each class it has, got {least}; "
                "leave the class out of this domain, or merge domains"
            )
        kept, test = train_test_split(
            rows, test_size=0.3, stratify=labels[rows], random_state=seed + 1
        )
        train, val = train_test_split(
            kept, test_size=0.2, stratify=labels[kept], random_state=seed + 1
        )
        parts = [(z[p], torch.as_tensor(labels[p])) for p in (train, val, test)]
        found.append(Domain(name, *parts))
    return found
