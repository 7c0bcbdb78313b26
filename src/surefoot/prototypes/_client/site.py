"""The folder of a site: what left it, what it has spent of its privacy, what it got back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from surefoot._numerics.checks import check_number
from surefoot._run.files import replacing, write_json
from surefoot.errors import FileFormatError, SurefootError
from surefoot.prototypes.guarantee import NOISE
from surefoot.prototypes.prototype_set import PrototypeSet
from surefoot.prototypes.splits import Rows


class Site:
    """Files of one partition in a folder of its site.

    Parameters
    ----------
    folder
        Must exist.
    partition
        In the names of its files.

    Raises
    ------
    SurefootError
        There is no such folder.
    """

    def __init__(self, folder: str | Path, partition: int) -> None:
        self.folder, self.partition = Path(folder).expanduser(), partition
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
        return self.folder / f"ledger-{self.partition}.json"

    def keep(self, protos: PrototypeSet) -> None:
        """Write an upload, and beside it what its extraction noted: that stays, and is no part of it."""
        protos.save(self.upload)
        noted = {name: list(known.all) for name, known in protos.record.facts.items()}
        noise = protos.record.curves(NOISE) if NOISE in protos.record else None
        write_json(
            self._notes,
            {
                "sha256": _sum_of(self.upload), "facts": noted,
                "noise": [] if noise is None else noise.values[0].tolist(),
                "steps": [] if noise is None else noise.steps.tolist(),
            },
        )  # fmt: skip

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
        with replacing(path) as partial, partial.open("wb") as stream:
            np.savez(stream, features=rows[0].numpy(), labels=rows[1].numpy())
        return path

    def kept(self) -> PrototypeSet:
        """The upload that `keep` wrote, with what its extraction noted.

        Raises
        ------
        surefoot.errors.FileFormatError
            There is none, it is damaged, or it is not the one that the notes beside it speak of.
        """
        protos = PrototypeSet.load(self.upload)
        try:
            noted = json.loads(self._notes.read_text(encoding="utf-8"))
            if noted["sha256"] != _sum_of(self.upload):
                raise ValueError("the upload has another hash")
            for name, values in noted["facts"].items():
                for value in values:
                    protos.record.note(0, **{name: value})
            protos.record.extend(0, NOISE, noted["noise"], noted["steps"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(
                f"{self._notes} does not belong to the upload beside it ({error}); do the dry run again"
            ) from None
        return protos

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

    def spent(self) -> float:
        """Sum of 1/nu^2 over all runs; 0 where nothing was released.

        Raises
        ------
        surefoot.errors.FileFormatError
            The file is damaged: what was spent is not known, and nothing may be released.
        """
        try:
            found = json.loads(self.ledger.read_text(encoding="utf-8"))["mu_squared"]
            return check_number(
                "mu_squared", math.inf if found == "inf" else found, least=0, finite=False
            )
        except FileNotFoundError:
            return 0.0
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{self.ledger} is damaged ({error}): what was spent is not known, and nothing is "
                "released; restore it from a copy"
            ) from None

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
        write_json(self.ledger, {k: v if math.isfinite(v) else "inf" for k, v in numbers.items()})


def _sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
