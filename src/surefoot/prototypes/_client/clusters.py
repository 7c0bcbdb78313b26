"""k-means of one class, with no cluster smaller than wished."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.cluster import KMeans, MiniBatchKMeans

MANY = 5000
"""Records of a class above which k-means runs on mini-batches: its time is rho n^2 d otherwise."""


@dataclass(frozen=True)
class Clusters:
    """Centres (m, d), the records that each stands for, and squared residuals summed by coordinate (d,)."""

    centres: Float64[np.ndarray, "m d"]
    sizes: Int64[np.ndarray, " m"]
    residual: Float64[np.ndarray, " d"]

    @property
    def variance(self) -> Float64[np.ndarray, " d"]:
        """Residuals over (n - m), the degrees of freedom that the centres leave; 0 where they leave none."""
        free = int(self.sizes.sum()) - len(self.sizes)
        return self.residual / free if free else np.zeros_like(self.residual)


def clustered(z: Float64[np.ndarray, "n d"], m: int, least: int, seed: int) -> Clusters:
    """At most m clusters; fewer where points coincide or small clusters are merged.

    Parameters
    ----------
    z
        The records of one class.
    m
        Clusters wanted.
    least
        Records that each must have, where the class has as many.
    seed
        Of the initial centres.
    """
    m = min(m, len(np.unique(z, axis=0)))
    if m > 1:
        kind = KMeans if len(z) <= MANY else MiniBatchKMeans
        labels = kind(n_clusters=m, n_init=1, random_state=seed).fit(z).labels_
    else:
        labels = np.zeros(len(z), dtype=np.int64)
    labels = np.unique(labels, return_inverse=True)[1]  # mini-batches may leave a cluster empty
    labels = _merged(z, labels, least)
    sizes = np.bincount(labels).astype(np.int64)
    centres = _sums(z, labels, len(sizes)) / sizes[:, None]
    # Of a single record, itself, to the last bit.
    residual = ((z - centres[labels]) ** 2).sum(axis=0)
    return Clusters(centres, sizes, residual)


def _sums(
    z: Float64[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], m: int
) -> Float64[np.ndarray, "m d"]:
    sums = np.zeros((m, z.shape[1]))
    np.add.at(sums, labels, z)
    return sums


def _merged(
    z: Float64[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], least: int
) -> Int64[np.ndarray, " n"]:
    """While a cluster is too small, the smallest joins the one with the nearest centre."""
    sizes = np.bincount(labels).astype(np.float64)
    sums = _sums(z, labels, len(sizes))
    alive = np.ones(len(sizes), dtype=bool)
    into = np.arange(len(sizes))
    while alive.sum() > 1:
        small = int(np.argmin(np.where(alive, sizes, np.inf)))
        if sizes[small] >= least:
            break
        alive[small] = False
        others = np.flatnonzero(alive)
        away = sums[others] / sizes[others, None] - sums[small] / sizes[small]
        nearest = int(others[np.argmin((away**2).sum(axis=1))])
        sums[nearest] += sums[small]
        sizes[nearest] += sizes[small]
        into[into == small] = nearest
    return np.unique(into[labels], return_inverse=True)[1]
