"""The task of `apps/mpft` from a run's configuration: real texts, or embeddings in a file of one's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.seeds import seed_for
from surefoot.errors import FileFormatError
from surefoot.prototypes._client.feature_file import FeatureFile, read_features
from surefoot.prototypes._client.inputs import members_of
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.splits import Rows
from surefoot.prototypes.text_embedding import embed_texts
from surefoot.prototypes.texts import DomainTexts, domain_texts
from surefoot.prototypes.views import sentiment_domains, wordnet_views

DATA = ("wordnet-views", "sentiment4", "texts", "features")


@dataclass(frozen=True, eq=False)
class ConfiguredTask:
    """Embeddings of all domains, or of one site: each partition's, cut into learnt from and held out.

    Parameters
    ----------
    file
        Embeddings, classes, domains, and what the head is made of.
    scale
        Of the head.
    share
        Of each class that is held out.
    seed
        Of the cuts.
    own
        Whether all of it belongs to this site.
    """

    file: FeatureFile
    scale: float
    share: float
    seed: int
    own: bool

    @property
    def encoder_id(self) -> str:
        """Name or hash of the encoder."""
        return self.file.encoder

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the head."""
        return self.file.classes

    def head(self) -> ZeroShotHead:
        """The zero-shot head.

        Raises
        ------
        surefoot.errors.FileFormatError
            The file has no rows for it.
        """
        if self.file.head is None:
            raise FileFormatError(
                f"{self.file.path} has no array `head`, (classes, d) or (classes, templates, d): the server "
                "makes the classifier of it; name a file that has one as head-path"
            )
        return ZeroShotHead(torch.as_tensor(self.file.head), self.scale)

    def records(self, partition: int, num_partitions: int, classes: tuple[str, ...]) -> Rows:
        """What a partition learns from.

        Parameters
        ----------
        partition, num_partitions
            Which, of how many.
        classes
            The server's names.
        """
        learn, _ = self._cut(partition, num_partitions, classes)
        return learn

    def held_out(
        self, partition: int, num_partitions: int, classes: tuple[str, ...]
    ) -> Rows | None:
        """What it is scored on; None where nothing is held out.

        Parameters
        ----------
        partition, num_partitions, classes
            As in `records`.
        """
        _, test = self._cut(partition, num_partitions, classes)
        return test if len(test[1]) else None

    def _cut(
        self, partition: int, num_partitions: int, classes: tuple[str, ...]
    ) -> tuple[Rows, Rows]:
        z, labels = self.file.features, self._numbered(classes)
        if not len(labels):
            raise FileFormatError(f"{self.file.path} has no features and labels, only a head")
        index = self._own(partition, num_partitions)
        learn, test = held_out_of(
            labels[index], self.share, seed_for("held out", self.seed, partition)
        )
        learn, test = index[learn], index[test]
        return (
            (torch.as_tensor(z[learn]), torch.as_tensor(labels[learn])),
            (torch.as_tensor(z[test]), torch.as_tensor(labels[test])),
        )

    def _own(self, partition: int, num_partitions: int) -> Int[np.ndarray, " n"]:
        if self.own:
            return np.arange(len(self.file.labels))
        if self.file.domains is None:
            raise FileFormatError(
                f"{self.file.path} has no array `domains`, so every partition would have the same records: a "
                "file of one site belongs into its node's configuration, data-path there"
            )
        from surefoot.federated.partition import domain_partition

        found = domain_partition(self.file.domains, num_partitions, self.seed)[partition]
        if not len(found):
            raise FileFormatError(
                f"{self.file.path} has too few records for {num_partitions} partitions: partition "
                f"{partition} gets none"
            )
        return found

    def _numbered(self, classes: tuple[str, ...]) -> Int[np.ndarray, " N"]:
        """Labels as places in the server's names."""
        own = self.file.classes
        if classes == own:
            return self.file.labels
        if not own or not classes:
            said = f"classes {list(own)}" if own else "no names of classes"
            raise FileFormatError(
                f"{self.file.path} has {said}, the server has {list(classes) or 'none'}: labels would mean "
                "something else on each side; give both"
            )
        there = {name: i for i, name in enumerate(classes)}
        if unknown := sorted(set(own) - set(there)):
            raise FileFormatError(
                f"{self.file.path} has classes {unknown} that the server does not know"
            )
        places = np.array([there[name] for name in own], dtype=np.int64)
        return np.asarray(places[self.file.labels])


def held_out_of(
    labels: Int[np.ndarray, " n"], share: float, seed: int
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]]:
    """Indices to learn from and to hold out: floor(share n_c) of each class are held out, never all.

    Parameters
    ----------
    labels
        Classes.
    share
        In [0, 1).
    seed
        Of the draw.
    """
    generator = np.random.default_rng(seed)
    out = [
        generator.permutation(own)[: min(int(share * len(own)), len(own) - 1)]
        for own in members_of(labels).values()
    ]
    test = np.sort(np.concatenate(out)).astype(np.int64)
    return np.setdiff1d(np.arange(len(labels)), test), test


def mpft_task(config: Mapping[str, Any]) -> ConfiguredTask:
    """From a configuration: data, data-path, scale, held-out, seed; "own-data" where a site named its own.

    Parameters
    ----------
    config
        Of the run, and before it of the node.

    Raises
    ------
    ValueError
        An unknown kind of data, a number outside its range.
    surefoot.errors.FileFormatError
        The file does not fit.
    """
    data = check_choice("data", config.get("data", "wordnet-views"), DATA)
    path = str(config.get("data-path", "") or "")
    if data in ("texts", "features") and not path:
        raise ValueError(f'data-path must name a file for data = "{data}", got none')
    if data in ("wordnet-views", "sentiment4") and path:
        raise ValueError(f'data-path = {path!r} is not used with data = "{data}"; leave it out')
    return ConfiguredTask(
        _loaded(data, path),
        check_number("scale", config.get("scale", 30.0), above=0),
        check_number("held-out", config.get("held-out", 0.3), least=0, below=1),
        check_number("seed", config.get("seed", 0), least=0, whole=True),
        bool(config.get("own-data", False)),
    )


def _loaded(data: str, path: str) -> FeatureFile:
    stamp = Path(path).stat().st_mtime_ns if path and Path(path).exists() else 0
    return _read(data, path, stamp)


@functools.lru_cache(maxsize=2)
def _read(data: str, path: str, stamp: int) -> FeatureFile:
    """Once in a process, as long as the file is the same."""
    if data == "features":
        return read_features(path)
    if data == "texts":
        return _of_texts(domain_texts(path), path)
    return _of_texts(wordnet_views() if data == "wordnet-views" else sentiment_domains(), data)


def _of_texts(source: DomainTexts, path: str) -> FeatureFile:
    prompts = [p for each in source.prompts for p in each]
    z, encoder = embed_texts((*source.texts, *prompts))
    rows: Float[Tensor, "classes templates d"] = z[len(source) :].reshape(
        len(source.classes), -1, z.shape[1]
    )
    return FeatureFile(
        path, z[: len(source)].numpy(), source.labels.astype(np.int64), source.domains, rows.numpy(),
        encoder, source.classes,
    )  # fmt: skip
