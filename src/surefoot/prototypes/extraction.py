"""A client's embeddings to its prototypes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.seeds import seed_for
from surefoot.errors import warn
from surefoot.prototypes._client.clusters import Clusters, clustered
from surefoot.prototypes._client.inputs import (
    classes_of,
    clipped_to,
    embeddings,
    frame_of,
    members_of,
    sizes_of,
    to_tensor,
)
from surefoot.prototypes._client.system_noise import system_normal, system_order
from surefoot.prototypes.gaussian_release import GaussianRelease, check_method_of_release
from surefoot.prototypes.guarantee import NOISE, SYSTEM
from surefoot.prototypes.prototype_set import METHODS, PrototypeSet
from surefoot.record import Record

Rows = np.ndarray


@checked
def extract_prototypes(
    feats: Any,
    y: Any,
    method: str = "cluster_var",
    ratio: float = 0.1,
    min_cluster: int = 2,
    seed: int = 0,
    dp: GaussianRelease | None = None,
    basis: Any = None,
    *,
    encoder_id: str = "",
) -> PrototypeSet:
    """The prototypes of one client; m = max(1, ceil(ratio n_c - 1e-9)) of a class unless it says otherwise.

    Parameters
    ----------
    feats
        (N, d) embeddings, not normalised; 16 bits become float32, float64 stays.
    y
        (N,) classes, whole numbers from 0.
    method
        "cluster_var" (recommended without privacy): k-means centres, sizes, one diagonal variance a class.
        "mean": one class mean (with `dp`, and the server's sampler "additive": recommended for private data).
        "cluster": k-means centres. "random": records themselves, in their original order.
        "gauss": class means and one second moment of the client. Mean, cluster and random: arXiv 2410.07738.
    ratio
        rho in (0, 1]; no effect on "mean" and "gauss".
    min_cluster
        No cluster has fewer records, unless its class has: a cluster of one is a private record.
    seed
        Of the sampling and of k-means. Noise, and with `dp` the sample too, come from the operating system's
        entropy and have no seed.
    dp
        Clip, noise and what it promises; only for "mean", "random" and "gauss".
    basis
        (d, k) with orthonormal columns, public, for "gauss": records are projected, then clipped.
    encoder_id
        Name or hash of the encoder.

    Raises
    ------
    ValueError
        Embeddings that are not finite, labels that are no classes, a method without finite sensitivity
        together with `dp`, or an argument outside its range.
    """
    check_choice("method", method, METHODS)
    ratio = check_number("ratio", ratio, above=0, most=1)
    least = check_number("min_cluster", min_cluster, least=1, whole=True)
    seed = check_number("seed", seed, least=0, whole=True)
    if not isinstance(encoder_id, str):
        raise ValueError(f"encoder_id must be a string that names the encoder, got {encoder_id!r}")
    check_method_of_release(method, dp)
    z, dtype = embeddings(feats)
    labels = classes_of(y, len(z))
    if basis is not None and method != "gauss":
        raise ValueError(f'basis is for method="gauss", got method={method!r}')
    frame = None if basis is None else frame_of(basis, z.shape[1])
    clipped = 0
    if frame is not None:
        z = z @ frame
    if dp is not None:
        z, clipped = clipped_to(z, dp.clip)
    elif method != "random" and (alone := [c for c, n in sizes_of(labels).items() if n == 1]):
        warn(f"classes {alone} have one record each: their prototype is that record itself")
    common: dict[str, Any] = {
        "method": method, "ratio": ratio, "counts": sizes_of(labels), "encoder_id": encoder_id,
        "release": dp, "clipped": clipped, "record": Record(),
    }  # fmt: skip
    _note(common["record"], method, ratio, dp, z)
    if method == "random":
        return _random(z, labels, ratio, seed, dp, dtype, common)
    if method in ("cluster", "cluster_var"):
        return _clusters(z, labels, ratio, least, seed, dtype, common)
    return _means(z, labels, dp, frame, dtype, common)


def _note(
    record: Record, method: str, ratio: float, dp: GaussianRelease | None, z: Float[Rows, "N d"]
) -> None:
    record.note(None, method=method, ratio=ratio, private=dp is not None)
    if dp is not None:
        longest = float(np.linalg.norm(z.astype(np.float64), axis=1).max())
        record.note(
            None, epsilon=dp.epsilon, delta=dp.delta, clip=dp.clip, beside="class sizes",
            clipped_to_clip=longest <= dp.clip * (1 + 1e-12),
        )  # fmt: skip


def _noisy(
    rows: Float[Rows, "..."], sigma: float, sensitivity: float, record: Record, step: int
) -> Float[Rows, "..."]:
    """Rows with independent noise, whose size goes into the record beside what one record can move."""
    record.append(0, step, **{NOISE: sigma / sensitivity})
    if sigma == 0:
        return rows
    record.note(0, noise_source=SYSTEM)
    return rows + sigma * system_normal(*rows.shape)


def _noisy_moment(
    moment: Float[Rows, "k k"], dp: GaussianRelease, n: int, record: Record, step: int
) -> Float[Rows, "k k"]:
    """The second moment with symmetric noise, filed behind the classes as theirs is."""
    sigma = dp.sigma(n, "moment")
    record.append(0, step, **{NOISE: sigma / (2 * math.sqrt(2) * dp.clip**2 / n)})
    if sigma == 0:
        return moment
    record.note(0, noise_source=SYSTEM)
    # Entries i, j and j, i of A + A^T are one draw: variance 1/2 off the diagonal and 1 on it.
    drawn = system_normal(*moment.shape)
    return np.asarray(moment + sigma * (drawn + drawn.T) / 2)


def rows_of(ratio: float, count: int) -> int:
    """Prototypes of a class of so many records: in floats .07 * 100 is above 7."""
    return max(1, math.ceil(ratio * count - 1e-9))


def _random(
    z: Float[Rows, "N d"],
    labels: Int[Rows, " N"],
    ratio: float,
    seed: int,
    dp: GaussianRelease | None,
    dtype: torch.dtype,
    common: dict[str, Any],
) -> PrototypeSet:
    if dp is not None and dp.nu > 0:
        warn(
            "each row of method 'random' is one record: noise for twice the clip on each leaves little to "
            'learn from; method "mean" needs n_c times less'
        )
    chosen, weights = [], np.empty(len(z))
    members = members_of(labels)
    for label, count in common["counts"].items():
        own = members[label]
        m = rows_of(ratio, count)
        if dp is None:
            order = np.random.default_rng(seed_for("random prototypes", seed, label)).permutation(
                count
            )
        else:
            order = system_order(count)
        chosen.append(own[order[:m]])
        weights[own] = count / m
    index = np.sort(np.concatenate(chosen))
    if dp is not None:
        # The original order would tell which record a row is.
        index = index[system_order(len(index))]
    rows = z[index]
    if dp is not None:
        rows = _noisy(rows, dp.sigma(1, "random"), 2 * dp.clip, common["record"], 0)
    return PrototypeSet(
        to_tensor(rows, dtype), torch.as_tensor(labels[index]),
        to_tensor(weights[index], torch.float32), **common,
    )  # fmt: skip


def _clusters(
    z: Float[Rows, "N d"],
    labels: Int[Rows, " N"],
    ratio: float,
    least: int,
    seed: int,
    dtype: torch.dtype,
    common: dict[str, Any],
) -> PrototypeSet:
    found: dict[int, Clusters] = {
        c: clustered(z[own], rows_of(ratio, len(own)), least, seed)
        for c, own in members_of(labels).items()
    }
    kept = {c: to_tensor(f.variance, dtype) for c, f in found.items()}
    return PrototypeSet(
        to_tensor(np.concatenate([f.centres for f in found.values()]), dtype),
        torch.as_tensor(np.repeat(list(found), [len(f.sizes) for f in found.values()])),
        to_tensor(np.concatenate([f.sizes for f in found.values()]).astype(float), torch.float32),
        variances=kept if common["method"] == "cluster_var" else {},
        **common,
    )  # fmt: skip


def _means(
    z: Float[Rows, "N k"],
    labels: Int[Rows, " N"],
    dp: GaussianRelease | None,
    frame: Float[Rows, "d k"] | None,
    dtype: torch.dtype,
    common: dict[str, Any],
) -> PrototypeSet:
    counts = common["counts"]
    members = members_of(labels)
    means = np.stack([z[own].mean(axis=0) for own in members.values()])
    moment = z.T @ z / len(z) if common["method"] == "gauss" else None
    if dp is not None:
        rows = zip(counts.items(), means, strict=True)
        means = np.stack(
            [
                _noisy(m, dp.sigma(n), 2 * dp.clip / len(members[c]), common["record"], c)
                for (c, n), m in rows
            ]
        )
        if moment is not None:
            moment = _noisy_moment(moment, dp, len(z), common["record"], max(counts) + 1)
    if frame is not None:
        means = means @ frame.T
    return PrototypeSet(
        to_tensor(means, dtype), torch.tensor(list(counts)),
        torch.tensor([float(n) for n in counts.values()]),
        moment=None if moment is None else to_tensor(moment, dtype),
        basis=None if frame is None else to_tensor(frame, dtype),
        **common,
    )  # fmt: skip
