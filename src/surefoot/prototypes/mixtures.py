"""FedPFT, the one-shot peer: a Gaussian mixture of each class and client travels (arXiv 2402.01862)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.seeds import generator_for
from surefoot.prototypes._client.inputs import classes_of, embeddings, members_of


@checked
@dataclass(frozen=True, eq=False)
class Mixture:
    """Of one class: K components with diagonal covariances, and the records it stands for.

    Attributes
    ----------
    means
        (K, d).
    variances
        (K, d), of each coordinate.
    weights
        (K,), of sum 1.
    count
        Records of the class.
    """

    means: Float[Tensor, "K d"]
    variances: Float[Tensor, "K d"]
    weights: Float[Tensor, " K"]
    count: int

    def __post_init__(self) -> None:
        check_number("count", self.count, least=1, whole=True)
        for name in ("means", "variances", "weights"):
            if not getattr(self, name).numel():
                raise ValueError(f"{name} must hold at least one component, got none")

    @property
    def nbytes(self) -> int:
        """K (8d + 4), and 16 for class and count."""
        return 4 * (self.means.numel() + self.variances.numel() + self.weights.numel()) + 16


@checked
def fedpft(feats: Any, y: Any, components: int = 1, seed: int = 0) -> dict[int, Mixture]:
    """What one client uploads: {class: its mixture}; a class has at most as many components as records.

    Parameters
    ----------
    feats
        (N, d) embeddings.
    y
        (N,) classes.
    components
        K; 1 is the class mean and the variance of each coordinate.
    seed
        Of the k-means from which expectation maximisation starts.

    Raises
    ------
    ValueError
        Embeddings that are not finite, or labels that are no classes.
    """
    most = check_number("components", components, least=1, whole=True)
    seed = check_number("seed", seed, least=0, whole=True)
    z, dtype = embeddings(feats)
    labels = classes_of(y, len(z))
    found = {}
    for label, own in members_of(labels).items():
        parts = _components(z[own], min(most, len(np.unique(z[own], axis=0))), seed)
        means, variances, weights = (torch.as_tensor(p).to(dtype) for p in parts)
        found[label] = Mixture(means, variances, weights, len(own))
    return found


def _components(
    rows: Float[np.ndarray, "n d"], k: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if k == 1:
        return rows.mean(0, keepdims=True), rows.var(0, keepdims=True), np.ones(1)
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    with warnings.catch_warnings():
        # A mixture short of its optimum is still what the client would send.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit = GaussianMixture(k, covariance_type="diag", random_state=seed).fit(rows)
    return fit.means_, fit.covariances_, fit.weights_


@checked
def sample_mixtures(
    uploads: Sequence[dict[int, Mixture]], per_record: int = 2, seed: int = 0
) -> tuple[Float[Tensor, "N d"], Int[Tensor, " N"]]:
    """Features and classes that the server trains on: per_record n_c of each class and client.

    Parameters
    ----------
    uploads
        One a client, in partition order.
    per_record
        Features for each record; the paper draws 1.
    seed
        Of the drawing.

    Raises
    ------
    ValueError
        No uploads, or fewer than one feature a record.
    """
    times = check_number("per_record", per_record, least=1, whole=True)
    if not uploads:
        raise ValueError("uploads must hold at least one, got none")
    features, labels = [], []
    for i, upload in enumerate(uploads):
        for label, mixture in sorted(upload.items()):
            generator = generator_for("fedpft", seed, i, label)
            drawn = times * mixture.count
            which = torch.multinomial(mixture.weights.double(), drawn, True, generator=generator)
            noise = torch.randn(
                drawn, mixture.means.shape[1], generator=generator, dtype=mixture.means.dtype
            )
            features.append(mixture.means[which] + mixture.variances[which].sqrt() * noise)
            labels.append(torch.full((drawn,), label))
    return torch.cat(features), torch.cat(labels)
