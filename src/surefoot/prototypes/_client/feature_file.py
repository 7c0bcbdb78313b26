"""Embeddings in a file of one's own: an .npz of plain arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from surefoot._numerics.npy import BAD_ZIP
from surefoot.errors import FileFormatError

KNOWN = ("features", "labels", "domains", "head", "encoder", "classes")


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """What is in it.

    Attributes
    ----------
    path
        Of the file, for errors.
    features
        (N, d) embeddings.
    labels
        (N,) classes.
    domains
        (N,) domain of each; None: one site.
    head
        (classes, d) or (classes, templates, d); None: it has none.
    encoder
        Its name or hash.
    classes
        Names; ().
    """

    path: str
    features: Float[np.ndarray, "N d"]
    labels: Int[np.ndarray, " N"]
    domains: Shaped[np.ndarray, " N"] | None
    head: Float[np.ndarray, "..."] | None
    encoder: str
    classes: tuple[str, ...]


def read_features(path: str | Path) -> FeatureFile:
    """Arrays `features` (N, d), `labels` (N,); `domains`, `head`, `encoder`, `classes` where there are.

    A file with a head alone is a server's.

    Raises
    ------
    surefoot.errors.FileFormatError
        It is missing, damaged, or an array does not fit; the file is named.
    """
    try:
        # Opened here: np.load leaves a file open that it cannot read.
        with Path(path).expanduser().open("rb") as stream:
            # NumPy would advise to unpickle it.
            if stream.read(4) not in (b"PK\x03\x04", b"PK\x05\x06", b"\x93NUM"):
                raise ValueError("it does not begin as one")
            stream.seek(0)
            stored = np.load(stream, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                raise ValueError("it is a single array; save several with numpy.savez")
            with stored:
                found: dict[str, Any] = {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        raise FileFormatError(f"there is no file {path}") from None
    except (OSError, ValueError, KeyError, *BAD_ZIP) as error:
        raise FileFormatError(f"{path} is no .npz of plain arrays: {error}") from None
    if "head" in found and not {"features", "labels"} & set(found):
        # A server's file: a classifier, and nobody's records.
        d = found["head"].shape[-1] if found["head"].ndim else 0
        found |= {"features": np.zeros((0, d), np.float32), "labels": np.zeros(0, np.int64)}
    unknown = sorted(set(found) - set(KNOWN))
    if missing := sorted({"features", "labels"} - set(found)):
        raise FileFormatError(f"{path} lacks the arrays {', '.join(missing)}")
    if unknown:
        raise FileFormatError(f"{path} has arrays {unknown} that nobody reads; known are {KNOWN}")
    z, labels = found["features"], found["labels"]
    if z.ndim != 2 or z.dtype.kind != "f":
        raise FileFormatError(f"{path}: features must be (N, d) floats, got {z.dtype} {z.shape}")
    if labels.shape != z.shape[:1] or labels.dtype.kind not in "iu":
        raise FileFormatError(
            f"{path}: labels must be ({len(z)},) whole numbers, got {labels.dtype} {labels.shape}"
        )
    domains = found.get("domains")
    if domains is not None and domains.shape != labels.shape:
        raise FileFormatError(f"{path}: domains must be ({len(z)},), got {domains.shape}")
    classes = _names(path, found)
    if labels.size and (labels.min() < 0 or (classes and labels.max() >= len(classes))):
        raise FileFormatError(
            f"{path}: labels must be from 0 and below the number of classes, got {labels.min()} to "
            f"{labels.max()}"
        )
    _check_head(path, found.get("head"), z, labels, classes)
    if z.dtype not in (np.float32, np.float64):
        z = z.astype(np.float32)
    return FeatureFile(
        str(path), z, labels.astype(np.int64), domains, found.get("head"),
        str(found.get("encoder", "")), classes,
    )  # fmt: skip


def _names(path: str | Path, found: dict[str, Any]) -> tuple[str, ...]:
    """Names of the classes; that of the encoder is looked at too."""
    given = found.get("classes", np.array((), dtype=str))
    classes = tuple(map(str, given.tolist())) if given.ndim == 1 else ()
    if given.ndim != 1 or len(set(classes)) < len(classes):
        raise FileFormatError(f"{path}: classes must be different names, got {given.tolist()}")
    if found.get("encoder", np.array("")).ndim:
        raise FileFormatError(f"{path}: encoder must be one name, got {found['encoder'].tolist()}")
    return classes


def _check_head(
    path: str | Path, head: Any, z: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    """A head that is not for these embeddings would be refused when everybody has sent."""
    if head is None:
        return
    if head.ndim not in (2, 3) or head.shape[-1] != z.shape[1]:
        raise FileFormatError(
            f"{path}: head must be (classes, d) or (classes, templates, d) with d = {z.shape[1]}, got "
            f"{head.shape}"
        )
    if (classes and len(classes) != len(head)) or (labels.size and labels.max() >= len(head)):
        raise FileFormatError(
            f"{path}: head has {len(head)} rows, classes {len(classes) or 'no'} names, labels go to "
            f"{labels.max() if labels.size else 'nothing'}"
        )
