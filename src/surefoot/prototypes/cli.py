"""Look at an upload of prototypes before it leaves the site."""

from __future__ import annotations

import json as jsonlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from surefoot.errors import SurefootError

NAME = "prototypes"


@dataclass(frozen=True)
class Inspect:
    """Say what an upload holds: rows, bytes, privacy, and how near it comes to records, which are not shown.

    The file is what `PrototypeSet.save`, or an app with a site-dir, has written.
    """

    upload: tyro.conf.Positional[Path]
    """The file."""
    records: Path | None = None
    """Own records: an .npz with the arrays features (N, d) and labels (N,), from which the upload came."""
    others: Path | None = None
    """Records of the same kind that were not in it, for the membership attack."""
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.prototypes._client.feature_file import read_features
        from surefoot.prototypes.inspection import inspect_upload
        from surefoot.prototypes.prototype_set import PrototypeSet

        protos = PrototypeSet.load(self.upload)
        given: list[Any] = []
        for path in (self.records, self.others):
            found = None if path is None else read_features(path)
            if found is not None and not len(found.labels):
                raise SurefootError(f"{path} has a head and no records: give features and labels")
            if found is not None and found.classes:
                raise SurefootError(
                    f"{path} has names of classes, and an upload numbers them in the server's order: give "
                    "the records that a dry run wrote beside it, or number labels so, without `classes`"
                )
            given += [None, None] if found is None else [found.features, found.labels]
        try:
            report = inspect_upload(protos, *given)
        except ValueError as error:
            if isinstance(error, SurefootError):
                raise
            raise SurefootError(str(error)) from error
        print(jsonlib.dumps(report.to_dict(), indent=1, allow_nan=False) if self.json else report)
        return 0


# A mapping, as a union of one is no union and would make no subcommand.
COMMAND = {"inspect": Inspect}
