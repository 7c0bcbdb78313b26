"""`surefoot run METHOD --against BASELINE`: which run that is, and on which seeds the new one is paired."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from surefoot._run.folder import RunFolder
from surefoot.comparing.words import LAST
from surefoot.errors import SurefootError
from surefoot.study import Study


def baseline_of(studies: Sequence[Study], given: str, out: Path) -> RunFolder:
    """The run that is compared with.

    Raises
    ------
    SurefootError
        Several studies are run, it is a run of another one, or there is none yet.
    """
    if len(studies) != 1:
        raise SurefootError(f"--against is for one study, got {len(studies)}")
    study = studies[0].name
    if given != LAST:
        folder = RunFolder.open(given)
        if folder.study != study:
            raise SurefootError(
                f"--against must be a run of {study}, and {folder.path} is one of {folder.study}"
            )
        return folder
    found = [f for f in RunFolder.all(out) if f.study == study and f.certificates()]
    if not found:
        raise SurefootError(f"--against last: {out} holds no run of {study} that ended")
    return found[0]


def paired(study: Study, config: Any, baseline: RunFolder) -> Any:
    """The configuration on the baseline's size and seeds, where the command line says nothing of them.

    Raises
    ------
    SurefootError
        No seed of any part would be shared: said before anything runs.
    """
    default, stored = study.config(), baseline.config.get("config", {})
    changes = {
        name: stored[name]
        for name in ("size", "seed", "seeds")
        if name in stored and getattr(config, name) == getattr(default, name)
    }
    config = dataclasses.replace(config, **changes)
    planned = {p.name: set(p.seeds_for(config)) for p in study.chosen(config)}
    ran = {name: set(about["seeds"]) for name, about in baseline.parts.items()}
    if not any(seeds & ran.get(name, set()) for name, seeds in planned.items()):
        raise SurefootError(
            f"--against {baseline.path} shares no seed of any part with this run: choose other --seed, "
            "--seeds or --part"
        )
    return config
