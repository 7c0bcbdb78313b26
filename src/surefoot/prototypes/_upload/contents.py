"""What an upload says of itself beside its arrays, and both read back from whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped

from surefoot._numerics.checks import check_number
from surefoot.prototypes.gaussian_release import GaussianRelease

FORMAT = 1
FLOATS = ("float32", "float64")
NEEDED: dict[str, tuple[tuple[str, ...], int]] = {
    "features": (FLOATS, 2), "labels": (("int64",), 1), "weights": (("float32",), 1),
    "counts": (("int64",), 1),
}  # fmt: skip
OTHER: dict[str, tuple[tuple[str, ...], int]] = {"variances": (FLOATS, 2), "moment": (FLOATS, 2)}
RELEASE = ("epsilon", "delta", "clip")
LONGEST = 256
"""Characters of the encoder's name."""
Arrays = Mapping[str, Shaped[np.ndarray, "..."]]


def about(
    method: str, ratio: float, encoder_id: str, release: GaussianRelease | None
) -> dict[str, Any]:
    """What travels in words and single numbers.

    Parameters
    ----------
    method, ratio, encoder_id, release
        As of a `PrototypeSet`.
    """
    found: dict[str, Any] = {
        "format": FORMAT, "method": method, "ratio": float(ratio), "encoder": encoder_id,
    }  # fmt: skip
    if release is not None:
        found |= {name: getattr(release, name) for name in RELEASE}
    return found


def contents(arrays: Arrays, said: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a `PrototypeSet`, from arrays and words that anybody may have written.

    Parameters
    ----------
    arrays
        By name.
    said
        As of `about`.

    Raises
    ------
    ValueError
        Arrays or words that are missing, too many, of another type or shape; they are named.
    """
    _check_names("arrays", arrays, NEEDED, OTHER)
    _check_names("words", said, ("format", "method", "ratio", "encoder"), RELEASE)
    for name, (dtypes, ndim) in {**NEEDED, **OTHER}.items():
        if name not in arrays:
            continue
        given = arrays[name]
        if given.dtype.name not in dtypes or given.ndim != ndim:
            raise ValueError(
                f"{name} must be {' or '.join(dtypes)} of {ndim} dimension{'s'[: ndim - 1]}, got "
                f"{given.dtype} of shape {given.shape}"
            )
    floats = {n: arrays[n].dtype.name for n in ("features", "variances", "moment") if n in arrays}
    if len(set(floats.values())) > 1:
        raise ValueError(f"features, variances and moment must share one dtype, got {floats}")
    classes = np.unique(arrays["labels"]).tolist()
    counts = arrays["counts"].tolist()
    if len(counts) != len(classes):
        raise ValueError(
            f"counts must be one for each of the {len(classes)} classes of labels, got {len(counts)}"
        )
    found = {
        name: torch.from_numpy(np.array(arrays[name])) for name in ("features", "labels", "weights")
    }
    extra: dict[str, Any] = {}
    if "variances" in arrays:
        given = arrays["variances"]
        if len(given) != len(classes):
            raise ValueError(f"variances must be one row a class: {len(classes)}, got {len(given)}")
        extra["variances"] = {
            c: torch.from_numpy(np.array(row)) for c, row in zip(classes, given, strict=True)
        }
    if "moment" in arrays:
        extra["moment"] = torch.from_numpy(np.array(arrays["moment"]))
    return {
        **found, **extra, "counts": dict(zip(classes, counts, strict=True)), **_words(said),
    }  # fmt: skip


def _words(said: Mapping[str, Any]) -> dict[str, Any]:
    if said["format"] != FORMAT or isinstance(said["format"], bool):
        raise ValueError(
            f"format must be {FORMAT}, got {said['format']!r}: another version of surefoot wrote it"
        )
    for name in ("method", "encoder"):
        if not isinstance(said[name], str) or len(said[name]) > LONGEST:
            raise ValueError(f"{name} must be a word of at most {LONGEST} characters")
    given = [name for name in RELEASE if name in said]
    if given and len(given) < len(RELEASE):
        raise ValueError(f"a release has {', '.join(RELEASE)}, got only {', '.join(given)}")
    release = GaussianRelease(*(said[name] for name in RELEASE)) if given else None
    ratio = check_number("ratio", said["ratio"], above=0, most=1)
    return {
        "method": said["method"], "ratio": ratio, "encoder_id": said["encoder"], "release": release,
    }  # fmt: skip


def _check_names(what: str, given: Mapping[str, Any], needed: Any, optional: Any) -> None:
    missing = sorted(set(needed) - set(given))
    extra = sorted(set(given) - set(needed) - set(optional))
    if missing or extra:
        raise ValueError(
            f"the {what} of an upload do not fit: missing {missing}, extra {extra[:8]}"
        )
