"""What one client uploads, and nothing else: prototypes with what the server needs to use them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number, check_real
from surefoot._numerics.shown import shown
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.errors import ArgumentError, FileFormatError
from surefoot.prototypes._upload.contents import about, contents
from surefoot.prototypes._upload.file import read_upload, write_upload
from surefoot.prototypes.certificates import of_upload
from surefoot.prototypes.gaussian_release import GaussianRelease
from surefoot.record import Record

if TYPE_CHECKING:
    from surefoot.prototypes.doors.records import RecordDict

METHODS = ("cluster_var", "mean", "cluster", "random", "gauss")


@showing
@checked(leave=("features", "labels", "weights"))
@dataclass(frozen=True, eq=False)
class PrototypeSet:
    """The prototypes of one client.

    Parameters
    ----------
    features
        (M, d), float32 or float64.
    labels
        (M,) classes, int64.
    weights
        (M,) records that each row stands for; those of a class sum to its n_c.
    method
        How they were made, as in `extract_prototypes`.
    ratio
        rho; without effect on "mean" and "gauss".
    counts
        {class: n_c}.
    encoder_id
        Name or hash of the encoder; the server refuses to mix two.
    release
        What the noise promises; None: no noise, no privacy.
    variances
        {class: (d,)} within clusters, of "cluster_var" only.
    moment
        (k, k), the client's second moment in the basis, of "gauss" only.
    basis
        (d, k) with orthonormal columns: the moment is (and the features lie) in its span; None: the whole
        space.
    clipped
        Records that were longer than the clip. It depends on the records outside the guarantee: it stays
        with the client, and `arrays()` leaves it out.
    record
        What the extraction did; empty at the server.

    Raises
    ------
    ValueError
        Numbers that are not finite, or shapes, classes or weights that contradict each other.
    """

    features: Float[Tensor, "M d"]
    labels: Int[Tensor, " M"]
    weights: Float[Tensor, " M"]
    method: str
    ratio: float
    counts: Mapping[int, int]
    encoder_id: str = ""
    release: GaussianRelease | None = None
    variances: Mapping[int, Float[Tensor, " d"]] = field(default_factory=dict)
    moment: Float[Tensor, "k k"] | None = None
    basis: Float[Tensor, "d k"] | None = None
    clipped: int = 0
    record: Record = field(default_factory=Record, repr=False)

    def __post_init__(self) -> None:
        check_choice("method", self.method, METHODS)
        check_number("ratio", self.ratio, least=0, most=1)
        check_number("clipped", self.clipped, least=0, whole=True)
        for name in ("features", "labels", "weights"):
            given = getattr(self, name)
            if not isinstance(given, Tensor):
                raise ArgumentError(name, f"must be a tensor, got {shown(given)}")
            check_real(name, given)
        for name in ("features", "weights"):
            if not getattr(self, name).dtype.is_floating_point:
                raise ArgumentError(name, f"must be real numbers, got {getattr(self, name).dtype}")
        rows = tuple(self.features.shape)
        if len(rows) != 2 or not math.prod(rows):
            raise ValueError(f"features must be (M, d) with M and d at least 1, got {rows}")
        for name in ("labels", "weights"):
            given = getattr(self, name)
            if tuple(given.shape) != rows[:1]:
                raise ValueError(f"{name} must be ({rows[0]},), got {tuple(given.shape)}")
        if self.labels.dtype.is_floating_point or bool((self.labels < 0).any()):
            raise ValueError("labels must be whole numbers of at least 0")
        for name, given in self._numbers().items():
            if not bool(torch.isfinite(given).all()):
                raise ValueError(f"{name} must be finite, got NaN or infinity")
        if bool((self.weights <= 0).any()):
            raise ValueError(f"weights must be above 0, got {float(self.weights.min()):g}")
        seen = set(self.labels.tolist())
        if seen != set(self.counts):
            raise ValueError(
                f"counts must name the classes that have prototypes, got {sorted(self.counts)} for "
                f"{sorted(seen)}"
            )
        # torch gives `unique` no types.
        names, row = self.labels.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        shares = torch.zeros(len(names), dtype=torch.float64)
        shares.index_add_(0, row, self.weights.double().cpu())
        for label, share in zip(names.tolist(), shares.tolist(), strict=True):
            count = self.counts[label]
            if count < 1 or abs(share - count) > 1e-4 * count:
                raise ValueError(
                    f"weights of class {label} must sum to its count {count}, got {share:g}"
                )
        self._check_extras(seen, rows[1])

    def _numbers(self) -> dict[str, Tensor]:
        extra = {"moment": self.moment, "basis": self.basis}
        named = {f"variances of class {c}": v for c, v in self.variances.items()}
        there = {name: given for name, given in extra.items() if given is not None}
        return {"features": self.features, "weights": self.weights, **named, **there}

    def _check_extras(self, seen: set[int], d: int) -> None:
        wanted = seen if self.method == "cluster_var" else set()
        if set(self.variances) != wanted:
            raise ValueError(
                f"method {self.method!r} has variances of classes {sorted(wanted)}, "
                f"got {sorted(self.variances)}"
            )
        for label, given in self.variances.items():
            if tuple(given.shape) != (d,) or bool((given < 0).any()):
                raise ValueError(f"variances of class {label} must be ({d},) and at least 0")
        if (self.moment is not None) != (self.method == "gauss"):
            raise ValueError('a second moment belongs to method "gauss", and to no other')
        if self.moment is not None:
            k = d if self.basis is None else self.basis.shape[1]
            if tuple(self.moment.shape) != (k, k):
                raise ValueError(f"moment must be ({k}, {k}), got {tuple(self.moment.shape)}")

    @property
    def d(self) -> int:
        """Dimension of the embeddings."""
        return self.features.shape[1]

    def __len__(self) -> int:
        return len(self.features)

    def arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """What leaves the client, by name: a row is 4d + 8 bytes in float32, cluster_var's 4d + 12."""
        classes = sorted(self.counts)
        found = {
            "features": self.features.cpu().numpy(),
            "labels": self.labels.cpu().numpy().astype(np.int64),
            "weights": self.weights.cpu().numpy().astype(np.float32),
            "counts": np.array([self.counts[c] for c in classes], dtype=np.int64),
        }
        if self.variances:
            found["variances"] = np.stack([self.variances[c].cpu().numpy() for c in classes])
        if self.moment is not None:
            found["moment"] = self.moment.cpu().numpy()
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of `arrays()`."""
        return sum(a.nbytes for a in self.arrays().values())

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the upload, and what was done for it."""
        return of_upload(self.record, confidence)

    def about(self) -> dict[str, Any]:
        """What leaves the client beside `arrays()`: method, ratio, encoder, and what the noise promises."""
        return about(self.method, self.ratio, self.encoder_id, self.release)

    def to_record(self) -> RecordDict:
        """For Flower: {"arrays": ArrayRecord of `arrays()`, "about": ConfigRecord of `about()`}.

        A basis is public and does not travel.

        Raises
        ------
        MissingExtraError
            Without Flower.
        """
        from surefoot.prototypes.doors.records import packed

        return packed(self.arrays(), self.about())

    @classmethod
    def from_record(cls, record: RecordDict, *, basis: Tensor | None = None) -> PrototypeSet:
        """The upload in a record that anybody may have sent.

        Parameters
        ----------
        record
            As of `to_record`.
        basis
            (d, k), in which the moment of "gauss" is, as everybody knows it.

        Raises
        ------
        ValueError
            What does not fit, by name: arrays of other dtypes or shapes, labels below 0, NaN, counts that are
            not the weights' sums, an unknown method, half a release.
        """
        from surefoot.prototypes.doors.records import unpacked

        return cls(**contents(*unpacked(record)), basis=basis)

    def save(self, path: str | Path) -> None:
        """Write what leaves the client to a file, as `surefoot prototypes inspect` reads it.

        The file is an .npz without pickles: `arrays()`, `about()`, and nothing else.
        """
        write_upload(path, self.arrays(), self.about())

    @classmethod
    def load(cls, path: str | Path, *, basis: Float[Tensor, "d k"] | None = None) -> PrototypeSet:
        """Read what `save` wrote.

        Parameters
        ----------
        path
            The file.
        basis
            As in `from_record`.

        Raises
        ------
        surefoot.errors.FileFormatError
            It is missing, damaged, of another version, or no upload; the file is named.
        """
        arrays, said = read_upload(path)
        try:
            return cls(**contents(arrays, said), basis=basis)
        except ValueError as error:
            raise FileFormatError(f"{path} is no upload: {error}") from None


def an_upload(protos: Any) -> PrototypeSet:
    """What an audit, a coverage or a report is of.

    Raises
    ------
    ValueError
        It is something else, for instance the name of a file.
    """
    if not isinstance(protos, PrototypeSet):
        raise ValueError(
            f"protos must be a PrototypeSet, got {protos!r:.80}; PrototypeSet.load reads a file"
        )
    return protos


def uploads_of(sets: Any) -> list[PrototypeSet]:
    """What a server trains on, one a client.

    Raises
    ------
    ValueError
        None, a single one that is in no list, or something else among them.
    """
    if isinstance(sets, PrototypeSet) or not isinstance(sets, Iterable):
        raise ValueError(f"sets must be a list of PrototypeSet, one a client, got {sets!r:.80}")
    listed = list(sets)
    if not listed:
        raise ValueError("sets must hold at least one PrototypeSet, got none")
    for each in listed:
        if not isinstance(each, PrototypeSet):
            raise ValueError(f"sets must be a list of PrototypeSet, one a client, got {each!r:.80}")
    return listed
