"""An autoencoder in a file: all that builds it again, and its parameters."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Self

from surefoot import errors
from surefoot._run.files import write_json
from surefoot._sealed.writing import explained
from surefoot.architecture._autoencoder import files
from surefoot.architecture.space import MLPSpace

VERSION = 1


class Saved:
    """What writes and reads whatever is built of a space and words."""

    space: MLPSpace
    state_dict: Any
    load_state_dict: Any
    to: Any
    # Of the arguments, which `config` gives back.
    z_dim: int
    encoder_kind: Any
    decoder_kind: Any
    gate: Any
    winner_weight: float
    all_weight: float
    loss: Any
    seed: int

    def config(self) -> dict[str, Any]:
        """The arguments that build one of the same shape: words and numbers that JSON knows."""
        return {
            "space": dataclasses.asdict(self.space), "z_dim": self.z_dim, "encoder": self.encoder_kind,
            "decoder": self.decoder_kind, "gate": self.gate, "winner_weight": self.winner_weight,
            "all_weight": self.all_weight, "loss": self.loss, "seed": self.seed,
        }  # fmt: skip

    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the parameters and the configuration, as the file of `save` has it."""
        return files.digest(self.state_dict(), self._said())

    def _said(self) -> dict[str, Any]:
        return {"format": "surefoot.architecture.autoencoder", "version": VERSION, **self.config()}

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file that holds all but `record`, and beside it a .json for people.

        Each is written whole or not at all.

        Parameters
        ----------
        path : str or Path
            Where to; folders above it are made.

        Raises
        ------
        ValueError
            The path ends in .json, or a parameter is none of float16, float32 and float64.
        surefoot.errors.WriteError
            A full disk, a quota, a folder that may not be written to.
        """
        if Path(path).suffix == ".json":
            raise ValueError(f"path must not end in .json, which is for people, got {path}")
        said = self._said()
        files.write_tensors(Path(path), self.state_dict(), said)
        beside = Path(path).with_suffix(".json")
        with explained(beside):
            write_json(beside, said)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote, in the dtype that it had; its `record` is empty.

        Parameters
        ----------
        path : str or Path
            The .safetensors file; the .json is not needed.

        Raises
        ------
        FileFormatError
            It is another file, one of a newer version, or damaged.
        """
        tensors, said = files.read_tensors(Path(path))
        wanted = ("surefoot.architecture.autoencoder", VERSION)
        if (said.pop("format", None), said.pop("version", None)) != wanted:
            raise errors.FileFormatError(f"{path} is no autoencoder of version {VERSION}")
        try:
            space: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in said.pop("space").items()
            }
            build: Any = cls
            model: Self = build(MLPSpace(**space), **said)
            model.to(next(t.dtype for t in tensors.values() if t.is_floating_point()))
            model.load_state_dict(tensors)
        except (
            TypeError,
            ValueError,
            AttributeError,
            KeyError,
            RuntimeError,
            StopIteration,
        ) as error:
            raise errors.FileFormatError(f"{path} does not hold its network: {error}") from error
        return model
