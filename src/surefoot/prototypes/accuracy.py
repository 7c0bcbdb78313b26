"""Who is right on whose data: accuracies of every model on every domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.shown import shown
from surefoot.errors import ArgumentError
from surefoot.prototypes._client.inputs import labelled
from surefoot.prototypes.head import ZeroShotHead


@checked(nan=True)
@dataclass(frozen=True)
class AccuracyMatrix:
    """M[i, j] in [0, 1]: client i's model on client j's test data; one row where all share a model."""

    values: Float[np.ndarray, "models domains"]

    @property
    def ind(self) -> float:
        """Mean accuracy on the own domain; with one shared model the same as `ood`."""
        return float(self.values.mean() if len(self.values) == 1 else np.diag(self.values).mean())

    @property
    def ood(self) -> float:
        """Mean accuracy on the domains of others; NaN where there is one domain only."""
        if len(self.values) == 1:
            return float(self.values.mean())
        return float(self.values[~np.eye(len(self.values), dtype=bool)].mean())

    @property
    def worst(self) -> float:
        """The lowest accuracy of a client on its own domain."""
        return float(self.values.min() if len(self.values) == 1 else np.diag(self.values).min())


@checked(leave=("tests",))
def accuracy_matrix(
    models: nn.Module | Sequence[nn.Module], tests: Sequence[tuple[Any, Any]], head: ZeroShotHead
) -> AccuracyMatrix:
    """Accuracies on every domain.

    Parameters
    ----------
    models
        One adapter a client, or one that all share (`nn.Identity()`: zero-shot).
    tests
        (N_j, d) embeddings and (N_j,) classes of each domain.
    head
        The classifier.

    Raises
    ------
    ValueError
        No domain, models that are not one a domain, records that are not finite or do not fit the head, or
        logits that are not finite.
    """
    shared = isinstance(models, nn.Module)
    listed = [models] if isinstance(models, nn.Module) else list(models)
    given: Any = tests
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ArgumentError(
            "tests", f"must hold a pair (embeddings, classes) for each domain, got {shown(given)}"
        )
    if not tests:
        raise ValueError("tests must hold at least one domain, got none")
    if not shared and len(listed) != len(tests):
        raise ValueError(
            f"models must be one, or one a domain: {len(tests)} domains, got {len(listed)} models"
        )
    if not all(isinstance(test, Sequence) and len(test) == 2 for test in tests):
        raise ValueError("tests must hold a pair (embeddings, classes) for each domain")
    data = [labelled(feats, y, head.d, head.classes) for feats, y in tests]
    values = np.empty((len(listed), len(data)))
    with torch.no_grad():
        for i, model in enumerate(listed):
            dtype = next((p.dtype for p in model.parameters()), None)
            for j, (z, y) in enumerate(data):
                logits = head(model(z if dtype is None else z.to(dtype)))
                # The largest of NaNs is the first: that would be an accuracy too.
                if not bool(torch.isfinite(logits).all()):
                    raise ValueError(f"model {i} gives logits on domain {j} that are not finite")
                values[i, j] = float((logits.argmax(dim=1) == y).double().mean())
    return AccuracyMatrix(values)
