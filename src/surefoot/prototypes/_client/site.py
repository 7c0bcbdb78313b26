"""The folder of a site: what left it, what it has spent of its privacy, what it got back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from surefoot._numerics.checks import check_number
from surefoot._sealed.lines import is_sealed, seal_json, unseal_json
from surefoot._sealed.writing import explained, write_bytes, writing
from surefoot.errors import FileFormatError, SurefootError, warn
from surefoot.prototypes.guarantee import NOISE
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.splits import Rows

# The keys that older versions wrote, without a checksum.
OLD_LEDGER = {"mu_squared", "epsilon", "delta", "dealt"}
OLD_NOTES = {"sha256", "facts", "noise", "steps", "made with"}


class Site:
    """Files of one partition in a folder of its site.

    Parameters
    ----------
    folder
        Must exist.
    partition
        In the names of its files.
    dealt
        Into how many partitions the run deals out its records, and by which seed; None: the records are the
        site's own, and all that was released of them counts, at whatever partition.

    Raises
    ------
    SurefootError
        There is no such folder.
    """

    def __init__(
        self, folder: str | Path, partition: int, dealt: tuple[int, int] | None = None
    ) -> None:
        self.folder, self.partition, self.dealt = Path(folder).expanduser(), partition, dealt
        if not self.folder.is_dir():
            raise SurefootError(
                f"site-dir must be a folder that exists at partition {partition}, got {self.folder}"
            )

    @property
    def upload(self) -> Path:
        """What leaves, as `surefoot prototypes inspect` reads it."""
        return self.folder / f"upload-{self.partition}.npz"

    @property
    def ledger(self) -> Path:
        """What was spent, over all runs."""
        name = "ledger" if self.dealt is None else f"ledger-{self.partition}"
        return self.folder / f"{name}.json"

    def keep(self, protos: PrototypeSet, made_with: Mapping[str, object]) -> None:
        """Write an upload, and beside it what its extraction noted: that stays, and is no part of it.

        Parameters
        ----------
        protos
            The upload.
        made_with
            What `kept` gives back: for which run it was made.
        """
        protos.save(self.upload)
        noted = {name: list(known.all) for name, known in protos.record.facts.items()}
        noise = protos.record.curves(NOISE) if NOISE in protos.record else None
        said = {
            "upload": _sum_of(self.upload), "facts": noted,
            "noise": [] if noise is None else noise.values[0].tolist(),
            "steps": [] if noise is None else noise.steps.tolist(),
            "made with": dict(made_with),
        }  # fmt: skip
        # Facts may be of types that JSON has not.
        write_bytes(self._notes, seal_json(json.loads(json.dumps(said, default=str))))

    def keep_records(self, kind: str, rows: Rows) -> Path:
        """Own records as `surefoot prototypes inspect` takes them; they are for this site alone.

        Parameters
        ----------
        kind
            "records", from which the upload came, or "others".
        rows
            Embeddings and classes.
        """
        path = self.folder / f"{kind}-{self.partition}.npz"
        with writing(path) as stream:
            np.savez(stream, features=rows[0].numpy(), labels=rows[1].numpy())
        return path

    def kept(self) -> tuple[PrototypeSet, dict[str, object]]:
        """The upload that `keep` wrote with what its extraction noted, and what it was made with.

        Raises
        ------
        surefoot.errors.FileFormatError
            There is none, it is damaged, or it is not the one that the notes beside it speak of.
        """
        protos = PrototypeSet.load(self.upload)
        try:
            noted = _read(self._notes, OLD_NOTES)
            # Older versions wrote it under the other name.
            if noted.get("upload", noted.get("sha256")) != _sum_of(self.upload):
                raise ValueError(f"{self.upload.name} has another hash")
            for name, values in noted["facts"].items():
                for value in values:
                    protos.record.note(0, **{name: value})
            protos.record.extend(0, NOISE, noted["noise"], noted["steps"])
            made_with = dict(noted["made with"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(
                f"{self._notes} does not belong to the upload beside it, {self.upload.name} ({error}); "
                "do the dry run again"
            ) from None
        return protos, made_with

    @property
    def _notes(self) -> Path:
        return self.upload.with_suffix(".notes.json")

    def adapter(self, kind: str) -> Path:
        """What came back ("global"), or was made of it here ("personal")."""
        return self.folder / f"adapter-{kind}-{self.partition}.safetensors"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Two runs at once must not both spend what is there once."""
        with FileLock(self.ledger.with_suffix(".lock")):
            yield

    @property
    def _begun(self) -> Path:
        """There since the first release: a ledger that is missing beside it was lost, not never begun."""
        return self.ledger.with_suffix(".begun")

    def spent(self) -> float:
        """Sum of 1/nu^2 over all runs; 0 where nothing was released.

        Raises
        ------
        surefoot.errors.FileFormatError
            The file is damaged or lost, or of records that were dealt out otherwise: what was spent is not
            known, and nothing may be released.
        """
        unknown = "what was spent is not known, and nothing is released"
        try:
            noted = _read(self.ledger, OLD_LEDGER)
            found = noted["mu_squared"]
            dealt = None if noted["dealt"] is None else tuple(map(int, noted["dealt"]))
            spent = check_number(
                "mu_squared", math.inf if found == "inf" else found, least=0, finite=False
            )
        except FileNotFoundError:
            if self._begun.exists():
                raise FileFormatError(
                    f"{self.ledger} is gone, and {self._begun.name} beside it says that something was "
                    f"released: {unknown}; restore it from a copy"
                ) from None
            return 0.0
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{self.ledger} is damaged ({error}): {unknown}; restore it from a copy"
            ) from None
        if dealt != self.dealt:
            before, now = (
                "its own" if d is None else "dealt out to {} partitions by seed {}".format(*d)
                for d in (dealt, self.dealt)
            )
            # A record that moves to another partition takes nothing of what was spent along.
            raise FileFormatError(
                f"{self.ledger} is of records that were {before}, in this run they are {now}: {unknown}; "
                "keep number and seed, or take another site-dir for other records"
            )
        return spent

    def write_spent(self, mu_squared: float, epsilon: float, delta: float) -> None:
        """Keep what was spent.

        Parameters
        ----------
        mu_squared
            What counts.
        epsilon, delta
            The same for whoever reads the file.
        """
        numbers = {"mu_squared": mu_squared, "epsilon": epsilon, "delta": delta}
        # JSON has no infinity.
        words = {k: v if math.isfinite(v) else "inf" for k, v in numbers.items()}
        write_bytes(self.ledger, seal_json(words | {"dealt": self.dealt}))
        with explained(self._begun):
            self._begun.touch()


def hash_of(rows: Rows) -> str:
    """Of records, to the last bit and in their order."""
    found = hashlib.sha256()
    for each in rows:
        found.update(np.ascontiguousarray(torch.as_tensor(each).detach().cpu()).tobytes())
    return found.hexdigest()


def _read(path: Path, old: set[str]) -> dict[str, Any]:
    """JSON with its checksum, or with the keys of an older version, which wrote none.

    Raises
    ------
    ValueError
        It is not what was written.
    """
    content = path.read_bytes()
    if is_sealed(content):
        return unseal_json(content)
    found = json.loads(content)
    if not isinstance(found, dict) or set(found) != old:
        raise ValueError(f"it must have the keys {', '.join(sorted(old))}, or its checksum")
    warn(
        f"{path} is of an older version, which wrote no checksum: a changed number in it cannot be noticed",
        UserWarning,
    )
    return found


def _sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
