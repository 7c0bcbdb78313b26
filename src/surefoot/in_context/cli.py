"""Is it gradient descent? Probe a model's predictions from examples in its prompt."""

from __future__ import annotations

import importlib
import importlib.util
import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tyro

from surefoot._numerics.checks import check_number
from surefoot.errors import SurefootError

NAME = "in-context"


@dataclass(frozen=True)
class Probe:
    """Tell whether a callable runs gradient descent on its prompts: how many steps, which preconditioner.

    The callable takes X (B, d, n), y (B, n) and xq (B, d), tensors of float64, and returns (B,). A torch
    module or a scikit-learn regressor may stand in its place.
    """

    target: tyro.conf.Positional[str]
    """MODULE:CALLABLE, or FILE.py:CALLABLE. MODULE is looked for in this folder first."""
    dimension: int = 5
    """Features of an example, d."""
    examples: int = 20
    """Examples in a prompt, n."""
    max_loops: int = 8
    """Most steps of gradient descent to try."""
    prompts: int = 256
    """Prompts to fit, and as many to judge by."""
    seed: int = 0
    """Of the prompts."""
    layers: bool = False
    """The callable returns (B, layers), its prediction after every layer: fit each as one step."""
    confidence: float = 0.99
    """Of the intervals."""
    picture: Path | None = None
    """Draw the recovered weights against gradient descent's here: .html, or .svg, .pdf, .png with kaleido."""
    json: bool = False
    """Print JSON."""
    ARGUMENTS = MappingProxyType({"d": "dimension", "n": "examples", "size": "prompts"})

    def __post_init__(self) -> None:
        for name in ("dimension", "examples", "max_loops", "prompts"):
            check_number(name, getattr(self, name), least=1, whole=True)
        check_number("confidence", self.confidence, above=0, below=1)

    def __call__(self) -> int:
        from surefoot.in_context.probing import probe
        from surefoot.report.figures import check_figure_path, write_figure

        if self.picture is not None:
            check_figure_path(self.picture)
        try:
            report = probe(
                load_callable(self.target), d=self.dimension, n=self.examples,
                max_loops=self.max_loops, seed=self.seed, size=self.prompts, layerwise=self.layers,
                confidence=self.confidence,
            )  # fmt: skip
        except ValueError as error:
            if isinstance(error, SurefootError):
                raise
            raise SurefootError(str(error)) from error
        if self.picture is not None:
            write_figure(report.picture(), self.picture)
        print(jsonlib.dumps(report.to_dict(), indent=1, allow_nan=False) if self.json else report)
        return 0


def load_callable(target: str) -> Any:
    """What MODULE:CALLABLE or FILE.py:CALLABLE names.

    Raises
    ------
    SurefootError
        It is not of that form, or the module or the name is not there.
    """
    where, _, name = target.rpartition(":")
    if not where or not name:
        raise SurefootError(
            f"the callable must be MODULE:CALLABLE or FILE.py:CALLABLE, got {target!r}"
        )
    try:
        found: Any = _module(where)
    except SurefootError:
        raise
    except Exception as error:
        raise SurefootError(
            f"{where} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            there = ", ".join(n for n in sorted(vars(found)) if not n.startswith("_")) or "nothing"
            raise SurefootError(f"{where} has no {name}; it has {there}")
        found = getattr(found, part)
    return found


def _module(where: str) -> Any:
    if not where.endswith(".py"):
        # The installed command does not look into the folder that it is called in.
        sys.path.insert(0, str(Path.cwd()))
        try:
            return importlib.import_module(where)
        finally:
            sys.path.remove(str(Path.cwd()))
    path = Path(where)
    if not path.is_file():
        raise SurefootError(f"there is no file {where}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Beside it may be what it imports.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent.resolve()))
    return module


# A mapping, as a union of one is no union and would make no subcommand.
COMMAND = {"probe": Probe}
