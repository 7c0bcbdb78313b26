"""A study: a reproducible experiment in parts, declared here and executed by `surefoot._run`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from surefoot._numerics.arguments import checked
from surefoot._run.environment import EXTRAS, missing_packages
from surefoot._run.found import study_names as study_names
from surefoot._run.found import study_title as study_title
from surefoot.certificate import Certificate
from surefoot.errors import MissingExtraError, SurefootError, UnknownNameError
from surefoot.guarantee import Guarantee, Verdict
from surefoot.record import Record
from surefoot.settings import Size as Size
from surefoot.settings import StudyConfig as StudyConfig

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure


@checked
@dataclass(frozen=True)
class Part:
    """One experiment of a study.

    Parameters
    ----------
    name, title
        Words for the command line, and for people.
    run
        `run(config, seed, record)` fills the record of one seed: quantities at steps, and facts of what
        ran.
    guarantees
        `guarantees(config)`: what is promised of the record. Each quantity must be in it.
    certificates
        `certificates(config, record)`: certificates of what ran that came to its verdict itself.
    figures, tables
        Name -> plotly figure, and name -> data frame, made from the record.
    expects
        Certificate name -> verdict, where the study knows better than KEPT: counterexamples do.
    sizes
        Where the part runs unasked; named with --part it runs at any size.
    seeds
        Size -> number of seeds.
    deterministic
        One seed is enough.
    extras
        The extras of surefoot without which the part cannot run; it is then skipped by name.

    Raises
    ------
    UnknownNameError
        There is no such extra, or no such verdict.
    """

    name: str
    title: str
    run: Callable[[Any, int, Record], None]
    guarantees: Callable[[Any], Iterable[Guarantee]] = lambda config: ()
    certificates: Callable[[Any, Record], Iterable[Certificate]] = lambda config, record: ()
    figures: Callable[[Any, Record], Mapping[str, Figure]] = lambda config, record: {}
    tables: Callable[[Any, Record], Mapping[str, pd.DataFrame]] = lambda config, record: {}
    expects: Mapping[str, Verdict] = field(default_factory=dict)
    sizes: tuple[Size, ...] = ("quick", "standard", "paper")
    seeds: Mapping[Size, int] = field(
        default_factory=lambda: {"quick": 5, "standard": 12, "paper": 30}
    )
    deterministic: bool = False
    extras: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.extras:
            if name not in EXTRAS:
                raise UnknownNameError(f"extra of part {self.name}", name, EXTRAS)
        for verdict in self.expects.values():
            if verdict not in list(Verdict):
                raise UnknownNameError(
                    f"verdict that part {self.name} announces", str(verdict), list(Verdict)
                )
        # A word will do, and is then the verdict itself.
        expects = {name: Verdict(verdict) for name, verdict in self.expects.items()}
        object.__setattr__(self, "expects", expects)

    @property
    def missing(self) -> dict[str, tuple[str, ...]]:
        """Extra -> its packages that are not installed, of the extras that this part needs."""
        found = {name: missing_packages(name) for name in self.extras}
        return {name: packages for name, packages in found.items() if packages}

    def seeds_for(self, config: StudyConfig) -> list[int]:
        """The seeds that this part runs under a configuration."""
        count = 1 if self.deterministic else (config.seeds or self.seeds[config.size])
        return list(range(config.seed, config.seed + count))


@checked
@dataclass(frozen=True)
class Study:
    """A reproducible experiment: a configuration, and parts that turn it into certificates.

    Parameters
    ----------
    name
        How runs of it are filed.
    title, paper
        For people: what it shows, and of which paper.
    config
        The class of its configuration.
    parts
        Its experiments.
    module
        Where worker processes find it; `load_study` fills it in.

    Raises
    ------
    ValueError
        Two parts have one name, and so would share a record.
    """

    name: str
    title: str
    paper: str
    config: type[StudyConfig]
    parts: tuple[Part, ...]
    module: str | None = None

    def __post_init__(self) -> None:
        names = [p.name for p in self.parts]
        if not names:
            raise ValueError(f"parts must hold at least one part, got none in study {self.name}")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(
                    f"study {self.name} has {names.count(name)} parts of the name {name!r}; each needs "
                    "a name of its own"
                )

    @property
    def reference(self) -> str:
        """What `load_study` needs to find this study again in another process."""
        return self.module or self.name

    def chosen(self, config: StudyConfig) -> list[Part]:
        """The parts that a configuration asks for."""
        names = [p.name for p in self.parts]
        for name in config.part:
            if name not in names:
                raise UnknownNameError(f"part of study {self.name}", name, names)
        if config.part:
            return [p for p in self.parts if p.name in config.part]
        return [p for p in self.parts if config.size in p.sizes]

    def runnable(self, config: StudyConfig) -> list[Part]:
        """The parts that a configuration asks for and whose extras are installed.

        Raises
        ------
        MissingExtraError
            A part that was named, or every part, needs an extra that is not installed.
        """
        chosen = self.chosen(config)
        able = [p for p in chosen if not p.missing]
        for part in chosen:
            if part.missing and (config.part or not able):
                extra, packages = next(iter(part.missing.items()))
                raise MissingExtraError(
                    f"part {part.name} of study {self.name}", " and ".join(packages), extra
                )
        return able


def load_study(name: str) -> Study:
    """Import a study by the name of its folder, or one of your own by the name of its module.

    A module of your own is looked for in the current folder first, then where Python looks; it needs a
    `STUDY`.

    Raises
    ------
    UnknownNameError
        There is no such study, and no such module.
    SurefootError
        The module cannot be imported, or has no study.
    """
    own = name not in study_names()
    if own:
        _current_folder_first(name.split(".")[0])
        if importlib.util.find_spec(name.split(".")[0]) is None:
            raise UnknownNameError("study", name, [*study_names(), "all"])
    module = name if own else f"surefoot.{name}.study"
    try:
        study = getattr(importlib.import_module(module), "STUDY", None)
    except (ModuleNotFoundError, SyntaxError) as error:
        raise SurefootError(f"study {name!r} cannot be imported: {error}") from error
    if not isinstance(study, Study):
        raise SurefootError(f"module {module} has no STUDY of type surefoot.study.Study")
    # Worker processes find it by where it was found, whatever it calls itself.
    return dataclasses.replace(study, module=name) if own else study


def _current_folder_first(module: str) -> None:
    """Let the next import look in the current folder, as `python -m` has it; an installed command has not."""
    here = os.getcwd()
    if sys.path[:1] not in ([here], [""]):
        sys.path.insert(0, here)
    spec = importlib.machinery.PathFinder.find_spec(module, [here])
    loaded = sys.modules.get(module)
    # A study of this name that was loaded from another folder: a long-lived process changed its own.
    was = loaded.__spec__ if loaded is not None and hasattr(loaded, "STUDY") else None
    if spec is not None and was is not None and was.origin != spec.origin:
        del sys.modules[module]


# What executes a study lived here once.
_ELSEWHERE = {
    "BACKENDS": "backends", "check_backend": "backends", "Execution": "execution", "SeedResult": "seed",
    "conclude": "conclude", "config_of": "plan", "execute": "execute", "reproduce": "plan",
    "run_seed": "seed", "start": "plan",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'surefoot.study' has no attribute {name!r}")
    return getattr(importlib.import_module(f"surefoot._run.{_ELSEWHERE[name]}"), name)
