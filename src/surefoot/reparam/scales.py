"""The product of a hyper-search: per-channel scales by module path, in a safetensors file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._sealed.tensors import read_tensors, write_tensors
from surefoot.errors import FileFormatError, warn

# A mark in the files, not the path of a module.
FORMAT, VERSION = "surefoot.reparam.scales", "1"


@checked
class Scales(Mapping[str, Mapping[str, Tensor]]):
    """{module path: {branch: tensor of length Co}}; "identity" holds a."""

    version = VERSION

    def __init__(self, values: Mapping[str, Mapping[str, Float[Tensor, " co"]]]) -> None:
        self._values = {
            path: {b: v.detach().clone() for b, v in branches.items()}
            for path, branches in values.items()
        }

    def __getitem__(self, path: str) -> Mapping[str, Tensor]:
        return self._values[path]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def arrays(self) -> dict[str, Float[Tensor, " co"]]:
        """Flat: "path/branch" to tensor, as it is saved and sent."""
        return {f"{p}/{b}": v for p, bs in self._values.items() for b, v in bs.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Tensor]) -> Scales:
        """The inverse of `arrays`."""
        values: dict[str, dict[str, Tensor]] = {}
        for key, value in arrays.items():
            path, slash, branch = key.rpartition("/")
            if not slash:
                raise FileFormatError(f"{key!r} is not the name of a scale, PATH/BRANCH is needed")
            values.setdefault(path, {})[branch] = value
        return cls(values)

    def save(self, path: str | Path) -> None:
        """Write a .safetensors file, whole or not at all.

        Raises
        ------
        surefoot.errors.WriteError
            A full disk, a quota, a folder that may not be written to.
        """
        write_tensors(path, self.arrays(), {"format": FORMAT, "version": VERSION})

    @classmethod
    def load(cls, path: str | Path) -> Scales:
        """Read what `save` wrote.

        Raises
        ------
        FileFormatError
            Not such a file, one of a newer version, or not bit by bit what was written.

        Warns
        -----
        UserWarning
            The file is of an older version, which wrote no checksum.
        """
        found = read_tensors(path)
        meta = found.words
        if meta.get("format") != FORMAT or meta.get("version") != VERSION:
            raise FileFormatError(
                f"{path} holds {meta.get('format', 'no scales')} of version {meta.get('version')}; "
                f"version {VERSION} can be read"
            )
        if not found.sealed:
            warn(
                f"{path} is of an older version, which wrote no checksum: a changed number in it cannot be "
                "noticed",
                UserWarning,
            )
        try:
            return cls.from_arrays(found.tensors)
        except FileFormatError as error:
            raise FileFormatError(f"{path}: {error}") from error

    def to(self, dtype: torch.dtype) -> Scales:
        """The same scales in another dtype."""
        return Scales({p: {b: v.to(dtype) for b, v in bs.items()} for p, bs in self.items()})

    def __repr__(self) -> str:
        return f"Scales({len(self)} blocks)"
