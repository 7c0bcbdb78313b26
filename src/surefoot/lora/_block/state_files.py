"""A chain's state as files: `chain_state.safetensors` holds all of it, `chain.json` is for people.

One file is replaced in one go, so that a kill during a save leaves the state before or after it.
`chain.json` is the mark by which a folder is known to hold a chain, and a readable copy. Each file is checked
against its SHA-256 when it is read; older versions wrote none.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from surefoot._sealed.lines import is_sealed, seal_json, unseal_json
from surefoot._sealed.tensors import read_tensors, write_tensors
from surefoot._sealed.writing import write_bytes
from surefoot.errors import ArgumentError, FileFormatError, SurefootError, warn
from surefoot.lora._block.packing import Packed, pack
from surefoot.lora.config import RacConfig
from surefoot.lora.doors.peft import ADAPTER, adapter_config, with_stored_lora
from surefoot.lora.errors import ChainStateError
from surefoot.lora.state import ChainState

TENSORS, META, LORA = "chain_state.safetensors", "chain.json", "lora"
OPTIMIZER = "optimizer"  # the bytes of torch.save, as a tensor among the others
WORDS = "adapter_config"  # what the file of that name must hold


def write_state(
    state: ChainState,
    folder: Path,
    more: Mapping[str, Tensor] | None = None,
    words: Mapping[str, str] | None = None,
) -> None:
    """Write the two files, each whole or not at all.

    Parameters
    ----------
    state
        The chain as it stands.
    folder
        Made where it is missing.
    more
        Further tensors for the same file.
    words
        Further words for its header.

    Raises
    ------
    surefoot.errors.WriteError
        A full disk, a quota, a folder that may not be written to.
    """
    packed = pack(state)
    said = {"chain": json.dumps(packed["meta"]), **(words or {})}
    write_tensors(folder / TENSORS, {**packed["tensors"], **(more or {})}, said)
    write_bytes(folder / META, seal_json(packed["meta"]))


def read_state(folder: Path) -> Packed:
    """Read what `write_state` wrote; a missing or damaged file is a ChainStateError."""
    for name in (META, TENSORS):
        if not (folder / name).is_file():
            raise ChainStateError(
                f"{folder} holds no {name}: without it every merged block would be lost. Resume from "
                "a checkpoint that a chain wrote (a Trainer needs RacCallback for that)"
            )
    try:
        found = read_tensors(folder / TENSORS)
    except FileFormatError as error:
        raise ChainStateError(f"{error}; the chain state in it is not readable") from error
    with _damaged(folder / META):
        raw = (folder / META).read_bytes()
        about = unseal_json(raw) if found.sealed else json.loads(raw)
        if not isinstance(about, dict):
            raise ValueError("it is no object")
    with _damaged(folder / TENSORS):
        meta = json.loads(found.words["chain"])
        if not isinstance(meta, dict):
            raise ValueError("what it says of the chain is no object")
    if not found.sealed:
        if is_sealed((folder / META).read_bytes()):
            raise ChainStateError(
                f"{folder / TENSORS} lacks the checksum with which it was written"
            )
        warn(
            f"the chain state in {folder} is of an older version, which wrote no checksums: a changed "
            "number in it cannot be noticed",
            UserWarning,
        )
    return {
        "meta": meta, "tensors": found.tensors, "adapter_config": found.words.get(WORDS),
        "sealed": found.sealed,
    }  # fmt: skip


@contextmanager
def _damaged(path: Path) -> Iterator[None]:
    """Name the file whose content made what is within fail."""
    try:
        yield
    except Exception as error:  # whatever the content makes of the libraries that read it
        if isinstance(error, SurefootError) and not isinstance(error, ArgumentError):
            raise
        raise ChainStateError(
            f"{path} is damaged, the chain state in it is not readable: {type(error).__name__}: {error}"
        ) from error


def damaged_unless_sealed(folder: Path, packed: Packed) -> AbstractContextManager[None]:
    """Where no checksum has spoken for a state, blame its file for whatever goes wrong within.

    Parameters
    ----------
    folder, packed
        Where it was read, and what `read_state` gave.
    """
    return nullcontext() if packed["sealed"] else _blamed(folder)


@contextmanager
def _blamed(folder: Path) -> Iterator[None]:
    try:
        with _damaged(folder / TENSORS):
            yield
    except ChainStateError as error:
        if str(folder) in str(error):
            raise
        raise ChainStateError(
            f"{error} (or {folder / TENSORS} or {LORA}/{ADAPTER} beside it is damaged: an older version "
            "wrote them, without checksums)"
        ) from error


def write_all(state: ChainState, folder: Path, optimizer: Any) -> None:
    """State, extras, buffers, generators, adapter configuration and optimizer.

    Parameters
    ----------
    state
        The chain as it stands.
    folder
        Made where it is missing.
    optimizer
        Stored beside it, or None.
    """
    more = {f"extra.{k}": p.detach().cpu().clone() for k, p in state.extras().items()}
    more |= {f"buffer.{k}": b.detach().cpu().clone() for k, b in _buffers(state.model).items()}
    more["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        more |= {f"rng.cuda.{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    if optimizer is not None:
        held = io.BytesIO()
        torch.save(optimizer.state_dict(), held)
        more[OPTIMIZER] = torch.frombuffer(bytearray(held.getvalue()), dtype=torch.uint8)
    config = adapter_config(state.model, state.adapter)
    # First: what has the state has this too.
    write_bytes(folder / LORA / ADAPTER, config.encode())
    write_state(state, folder, more, {WORDS: config})


@dataclass(frozen=True)
class StoredChain:
    """What `write_all` stored, read but not yet put anywhere."""

    folder: Path
    packed: Packed

    @classmethod
    def read(cls, folder: Path) -> StoredChain:
        """A Trainer's checkpoint, which holds less, is a ChainStateError."""
        packed = read_state(folder)
        expected, path = packed["adapter_config"], folder / LORA / ADAPTER
        if expected is None and not path.parent.is_dir():
            raise ChainStateError(
                f"{folder} is a Trainer checkpoint; resume it with "
                "trainer.train(resume_from_checkpoint=...)"
            )
        if not path.is_file():
            raise ChainStateError(f"{path} is missing; it belongs to the chain state beside it")
        if expected is not None and path.read_bytes() != expected.encode():
            raise ChainStateError(f"{path} is not what was written with the chain state beside it")
        return cls(folder, packed)

    def damaged(self) -> AbstractContextManager[None]:
        """Where no checksum has spoken for the files, blame them for whatever goes wrong within."""
        return damaged_unless_sealed(self.folder, self.packed)

    @property
    def adapter(self) -> str:
        """The adapter's name."""
        return str(self.packed["meta"]["adapter_name"])

    def config(self) -> RacConfig:
        """The chain's settings; a ChainStateError where its sketch was a callable."""
        stored = self.packed["meta"]["config"]
        if str(stored["sketch"]).startswith("callable:"):
            raise ChainStateError(
                f"the chain was made with the sketch {stored['sketch'][9:]!r}, which a file cannot hold; "
                "pass config= with that callable"
            )
        # A field that is younger than the file has its default.
        names = [f.name for f in dataclasses.fields(RacConfig) if f.name in stored]
        return RacConfig(**{name: stored[name] for name in names})

    def model(self, base_model: nn.Module) -> Any:
        """The PeftModel of the original base, its adapter at zero."""
        sealed = self.packed["sealed"]
        with nullcontext() if sealed else _damaged(self.folder / LORA / ADAPTER):
            return with_stored_lora(base_model, self.folder / LORA, self.adapter)

    def put_back(self, state: ChainState, rng: bool) -> None:
        """Extras, buffers and, if `rng`, the state of torch's default generators."""
        tensors = self.packed["tensors"]
        with torch.no_grad():
            for key, parameter in state.extras().items():
                parameter.copy_(self._take(f"extra.{key}"))
            for key, buffer in _buffers(state.model).items():
                buffer.copy_(self._take(f"buffer.{key}"))
        if rng:
            torch.set_rng_state(tensors["rng.cpu"])
            for i in range(torch.cuda.device_count()):
                if f"rng.cuda.{i}" in tensors:
                    torch.cuda.set_rng_state(tensors[f"rng.cuda.{i}"], i)

    def _take(self, name: str) -> Tensor:
        tensors: dict[str, Tensor] = self.packed["tensors"]
        if name not in tensors:
            raise ChainStateError(
                f"the chain state in {self.folder} lacks {name}; is it another model?"
            )
        return tensors[name]


def read_optimizer(folder: Path | None, total_steps: int, optimizer: Any) -> None:
    """Load the optimizer state that was saved with a chain.

    Parameters
    ----------
    folder
        Where the chain came from; None: it was not resumed.
    total_steps
        Of the chain as it stands.
    optimizer
        It gets the stored state.
    """
    if folder is None:
        raise ChainStateError("restore_optimizer needs a chain that came from ChainOfLora.resume")
    stored = read_state(folder)
    if stored["meta"]["total_steps"] != total_steps:
        raise ChainStateError(
            f"{folder} was written again since the chain came from it, or the chain has "
            "moved; restore the optimizer at once after resume"
        )
    if OPTIMIZER not in stored["tensors"]:
        raise ChainStateError(f"{folder} holds no optimizer; pass it to save(folder, optimizer)")
    with _damaged(folder / TENSORS):
        held = io.BytesIO(stored["tensors"][OPTIMIZER].numpy().tobytes())
        found = torch.load(held, weights_only=True)
    optimizer.load_state_dict(found)


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    persistent = set(model.state_dict())
    return {name: b for name, b in model.named_buffers() if name in persistent}
