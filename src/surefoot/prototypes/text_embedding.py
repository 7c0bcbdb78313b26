"""Embeddings of texts, computed once and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from surefoot import data
from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.npy import BAD_ZIP
from surefoot._run.files import replacing
from surefoot.data.store import explained, sha256_of
from surefoot.errors import FileFormatError
from surefoot.prototypes.embedding import Encoder, embed
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.texts import DomainTexts

HASHED = (
    "config.json", "modules.json", "sentence_bert_config.json", "tokenizer.json", "vocab.txt",
    "model.safetensors", "pytorch_model.bin", "1_Pooling/config.json",
)  # fmt: skip
"""Files of an encoder on which its embeddings depend."""


@checked
def sentence_encoder(folder: str | Path | None = None) -> tuple[Encoder, str]:
    """A frozen sentence encoder that pools by the mean of tokens, and its hash.

    Parameters
    ----------
    folder
        In the format of sentence-transformers; by default `surefoot.data.load("minilm")`, all-MiniLM-L6-v2.

    Raises
    ------
    MissingExtraError
        Without transformers.
    surefoot.errors.FileFormatError
        The folder is none, or pools in another way.
    """
    from surefoot.prototypes.doors.transformers import SentenceEncoder

    where = data.load("minilm", folder)
    return SentenceEncoder(where), encoder_hash(where)


def encoder_hash(folder: Path) -> str:
    """16 hexadecimal digits of the files on which the embeddings depend."""
    there = [name for name in HASHED if (folder / name).is_file()]
    if not there:
        raise FileFormatError(f"{folder} holds none of {', '.join(HASHED)}")
    parts = [f"{name} {sha256_of(folder / name)}" for name in there]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@checked
def embed_texts(
    texts: Sequence[str],
    folder: str | Path | None = None,
    batch: int = 64,
    progress: Callable[[str], None] | None = None,
) -> tuple[Float[Tensor, "N d"], str]:
    """Embeddings of texts in their order, and the encoder's hash.

    They are kept as .npz in the data folder (`surefoot.data.cache_dir()`), under a name that depends on all
    texts and on the encoder; a second call reads them there. Texts are embedded by length, which pads least.

    Parameters
    ----------
    texts
        N of them.
    folder
        As in `sentence_encoder`.
    batch
        Texts at a time; no effect on what is returned beyond rounding.
    progress
        Called with one line when texts have to be embedded.

    Raises
    ------
    ValueError
        There are no texts.
    surefoot.data.DataError
        The folder cannot be written to.
    """
    size = check_number("batch", batch, least=1, whole=True)
    if not len(texts):
        raise ValueError("texts must hold at least one text, got none")
    where = data.load("minilm", folder)
    name = encoder_hash(where)
    file = _file(texts, name)
    kept = _read(file, len(texts))
    if kept is not None:
        return torch.from_numpy(kept), name
    if progress is not None:
        progress(f"embedding {len(texts):,} texts once; they are kept in {file}")
    encoder, _ = sentence_encoder(where)
    return kept_or_made(texts, name, encoder, texts, size), name


def kept_or_made(
    names: Sequence[str], encoder_name: str, encoder: Encoder, records: Sequence[Any], batch: int
) -> Float[Tensor, "N d"]:
    """Embeddings of records in their order, from the data folder or made and kept there.

    Parameters
    ----------
    names
        A text for each record, which with the encoder's name tells whether its embedding is there.
    encoder_name
        Of the encoder.
    encoder
        Asked for what is not there, for records of similar length of name at a time: texts so pad least.
    records
        N of them.
    batch
        Records at a time.
    """
    file = _file(names, encoder_name)
    kept = _read(file, len(names))
    if kept is None:
        order = np.argsort([len(t) for t in names], kind="stable")
        found = embed(encoder, [records[i] for i in order], batch).float().numpy()
        kept = np.empty_like(found)
        kept[order] = found
        _write(file, kept)
    return torch.from_numpy(kept)


def are_kept(source: DomainTexts, folder: str | Path | None = None) -> bool:
    """Whether `embedded` would find all of it on disk."""
    where = data.load("minilm", folder)
    texts = _all_texts(source)
    return _read(_file(texts, encoder_hash(where)), len(texts)) is not None


@checked
def embedded(
    source: DomainTexts,
    scale: float = 30.0,
    folder: str | Path | None = None,
    progress: Callable[[str], None] | None = None,
) -> tuple[Float[Tensor, "N d"], ZeroShotHead, str]:
    """Embeddings of all texts, the zero-shot head of the prompts, the encoder's hash.

    Parameters
    ----------
    source
        Texts and prompts.
    scale
        Of the head.
    folder, progress
        As in `embed_texts`.
    """
    z, name = embed_texts(_all_texts(source), folder, progress=progress)
    rows = z[len(source) :].reshape(len(source.classes), -1, z.shape[1])
    return z[: len(source)], ZeroShotHead(rows, scale), name


def _all_texts(source: DomainTexts) -> tuple[str, ...]:
    return (*source.texts, *(p for each in source.prompts for p in each))


def _file(texts: Sequence[str], encoder: str) -> Path:
    return data.cache_dir() / "embeddings" / f"{_hash(texts, encoder)}.npz"


def _hash(texts: Sequence[str], encoder: str) -> str:
    digest = hashlib.sha256(encoder.encode())
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:32]


def _read(file: Path, rows: int) -> Float[np.ndarray, "N d"] | None:
    """What was kept; a damaged file counts as none."""
    try:
        # Opened here: np.load leaves a file open that it cannot read.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            z: np.ndarray = stored["z"]
    except (OSError, ValueError, KeyError, *BAD_ZIP):
        return None
    fits = z.ndim == 2 and len(z) == rows and z.dtype == np.float32 and bool(np.isfinite(z).all())
    return z if fits else None


def _write(file: Path, z: Float[np.ndarray, "N d"]) -> None:
    """All at once: another process sees the whole file or none."""
    with explained("keep embeddings"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as stream:
            np.savez(stream, z=z)
