"""Embeddings and classes as they are given, checked and in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from surefoot._numerics.checks import check_numbers

Rows = np.ndarray


def labelled(
    feats: Any, y: Any, d: int, classes: int, of: str = "the head"
) -> tuple[Float[torch.Tensor, "N d"], Int[torch.Tensor, " N"]]:
    """Embeddings of a dimension and classes below a number, checked, as tensors."""
    z, dtype = embeddings(feats)
    labels = classes_of(y, len(z))
    if z.shape[1] != d:
        raise ValueError(f"feats must be (N, {d}), got {z.shape}")
    if labels.max() >= classes:
        raise ValueError(f"y must be below {classes}, the classes of {of}, got {labels.max()}")
    return to_tensor(z, dtype), torch.as_tensor(labels)


def embeddings(feats: Any) -> tuple[Float[Rows, "N d"], torch.dtype]:
    """The rows, and the dtype that is uploaded."""
    if isinstance(feats, torch.Tensor):
        if feats.is_complex() or feats.dtype == torch.bool:
            raise ValueError(f"feats must be real numbers, got {feats.dtype}")
        double = feats.dtype == torch.float64
        feats = feats.detach().cpu().double()  # NumPy has no bfloat16
    else:
        # A table has a dtype a column.
        double = _is_double(feats)
    z = check_numbers("feats", feats, ndim=2)
    dtype = torch.float64 if double else torch.float32
    # Means, variances and distances take squares.
    largest, most = float(np.abs(z).max()), (torch.finfo(dtype).max / z.size) ** 0.5 / 4
    if largest > most:
        raise ValueError(
            f"feats must be numbers up to {most:.2g}, got {largest:.3g}: their squares do not fit "
            f"{str(dtype).removeprefix('torch.')}; scale the embeddings"
        )
    return z, dtype


def _is_double(feats: Any) -> bool:
    try:
        return np.asarray(feats).dtype == np.float64
    except (TypeError, ValueError):  # `check_numbers` says what it is
        return False


def classes_of(y: Any, count: int) -> Int[Rows, " N"]:
    """One class a record."""
    given = check_numbers("y", y, ndim=1, nonnegative=True)
    if len(given) != count:
        raise ValueError(f"y must have one class a record: {count}, got {len(given)}")
    if (given != np.floor(given)).any():
        raise ValueError("y must hold whole numbers, one class a record")
    return given.astype(np.int64)


def frame_of(basis: Any, d: int) -> Float[Rows, "d k"]:
    """A basis with orthonormal columns."""
    frame = check_numbers("basis", basis, ndim=2)
    if frame.shape[0] != d or np.abs(frame.T @ frame - np.eye(frame.shape[1])).max() > 1e-5:
        raise ValueError(
            f"basis must be ({d}, k) with orthonormal columns, got shape {frame.shape}; "
            "take the Q of its QR decomposition"
        )
    return frame


def sizes_of(labels: Int[Rows, " N"]) -> dict[int, int]:
    """{class: records}."""
    return {int(c): int(n) for c, n in zip(*np.unique(labels, return_counts=True), strict=True)}


def members_of(labels: Int[Rows, " N"]) -> dict[int, Int[Rows, " n"]]:
    """{class: its records in their order}, in time N log N however many classes."""
    order = np.argsort(labels, kind="stable")
    classes, first = np.unique(labels[order], return_index=True)
    parts = np.split(order, first[1:])
    return {int(c): part for c, part in zip(classes, parts, strict=True)}


def clipped_to(z: Float[Rows, "N d"], clip: float) -> tuple[Float[Rows, "N d"], int]:
    """Rows no longer than the clip, and how many were."""
    sizes = np.linalg.norm(z.astype(np.float64), axis=1)
    long = sizes > clip
    z = z.copy()
    # A little below: the norm of what was scaled may be rounded up.
    z[long] *= (clip * (1 - 1e-15) / sizes[long])[:, None]
    return z, int(long.sum())


def to_tensor(rows: Float[Rows, "..."], dtype: torch.dtype) -> torch.Tensor:
    """The rows as they are uploaded."""
    return torch.as_tensor(rows).to(dtype)
