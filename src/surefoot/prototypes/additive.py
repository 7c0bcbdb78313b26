"""The sampler for class means alone: a class effect plus a client effect, shrunk by how noisy each is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot.prototypes.prototype_set import PrototypeSet, uploads_of

Rows = np.ndarray


@checked
def additive_model(
    sets: Sequence[PrototypeSet], residual: bool = True
) -> tuple[list[Float[Tensor, "M d"]], float]:
    """Shrunken class means of each client, and the variance of a coordinate around them.

    Class c at client i has the centre g_c + a_i o_i + b R_ic: the mean of the class over clients, the
    client's own shift, and what neither explains, each times its share of signal in an empirical Bayes
    estimate that knows the release's noise [derived]. All of it is post-processing of what was released. It
    rests on E|z|^2 = C^2, which encoders that normalise keep; C is the release's clip, and 1 without one.
    Classes that a client lacks are left out of every mean.

    Parameters
    ----------
    sets
        Of method "mean", one a client, in partition order.
    residual
        False: b = 0.

    Returns
    -------
    tuple
        Centres (M, d) of each set in its own row order and dtype, and the variance per coordinate.

    Raises
    ------
    ValueError
        Another method, clips that differ, or means without noise that are longer than 1.
    """
    sets = uploads_of(sets)
    clip = _check(sets)
    classes = sorted({int(c) for s in sets for c in s.labels.tolist()})
    d, at = sets[0].d, {c: j for j, c in enumerate(classes)}
    M = np.zeros((len(sets), len(classes), d))
    n = np.zeros((len(sets), len(classes)))
    sigma2 = np.zeros_like(n)
    for i, s in enumerate(sets):
        columns = [at[int(c)] for c in s.labels.tolist()]
        M[i, columns] = s.features.double().cpu().numpy()
        n[i, columns] = [s.counts[int(c)] for c in s.labels.tolist()]
        if s.release is not None:
            sigma2[i, columns] = [s.release.sigma(s.counts[int(c)]) ** 2 for c in s.labels.tolist()]
    mu, q = _shrunk(M, n, sigma2, clip, residual)
    centres = [
        torch.as_tensor(mu[i, [at[int(c)] for c in s.labels.tolist()]]).to(s.features.dtype)
        for i, s in enumerate(sets)
    ]
    return centres, max(clip**2 - q, 0.05 * clip**2) / d


def clip_of(sets: Sequence[PrototypeSet]) -> float:
    """C: the length of an embedding; 1 where nothing was released."""
    clips = {1.0 if s.release is None else s.release.clip for s in sets}
    if len(clips) > 1:
        raise ValueError(
            f"the additive sampler needs one clip at all clients, got {sorted(clips)}; agree on one"
        )
    return clips.pop()


def _check(sets: Sequence[PrototypeSet]) -> float:
    other = sorted({s.method for s in sets} - {"mean"})
    if other:
        raise ValueError(
            f'the additive sampler is for method "mean", got {", ".join(other)}; those need no sampler'
        )
    clip = clip_of(sets)
    exact = [s for s in sets if s.release is None or s.release.nu == 0]
    longest = max(
        (float(torch.linalg.vector_norm(s.features.double(), dim=1).max()) for s in exact),
        default=0.0,
    )
    if longest > clip * (1 + 1e-4):
        raise ValueError(
            f"the additive sampler takes embeddings of norm {clip:g}, but a class mean has norm "
            f"{longest:.4g}; normalise them at the clients, or release them with a clip"
        )
    return clip


def _mean_over(
    values: Float[Rows, "clients classes"], there: Bool[Rows, "clients classes"], axis: int | None
) -> Float[Rows, "..."]:
    return np.asarray((values * there).sum(axis=axis) / there.sum(axis=axis))


def _share(energy: Float[Rows, "..."], noise: Float[Rows, "..."]) -> Float[Rows, "..."]:
    """energy / (energy + noise), 1 where there is no noise."""
    total = energy + noise
    return np.where(noise > 0, energy / np.where(total > 0, total, 1.0), 1.0)


def _shrunk(
    M: Float[Rows, "clients classes d"],
    n: Float[Rows, "clients classes"],
    sigma2: Float[Rows, "clients classes"],
    clip: float,
    residual: bool,
) -> tuple[Float[Rows, "clients classes d"], float]:
    """The centres, and what of E|z|^2 they explain."""
    K, k, d = M.shape
    there = n > 0
    w = n**2 / (n**2).sum(axis=0)
    g = (w[:, :, None] * M).sum(axis=0)
    away = (M - g) * there[:, :, None]
    o = away.sum(axis=1) / there.sum(axis=1)[:, None]
    R = (away - o[:, None, :]) * there[:, :, None]
    # Each mean takes its own share of the noise with it.
    V_i = d * _mean_over(sigma2, there, 1) / there.sum(axis=1) * (1 - 1 / K)
    e_i = np.maximum((o**2).sum(axis=1) - V_i, 0)
    a = _share(e_i, V_i)
    V = np.asarray(d * _mean_over(sigma2, there, None) * (1 - 1 / K) * (1 - 1 / k))
    e = np.asarray(np.maximum(_mean_over((R**2).sum(axis=2), there, None) - V, 0))
    b = float(_share(e, V)) if residual else 0.0
    mu = g[None] + a[:, None, None] * o[:, None, :] + b * R
    of_classes = np.maximum((g**2).sum(axis=1) - d * (w**2 * sigma2).sum(axis=0), 0.02 * clip**2)
    return mu, math.fsum([float(of_classes.mean()), float((a * e_i).mean()), b * float(e)])
