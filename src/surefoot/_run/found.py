"""The studies there are, and the settings of each, without importing what they run."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import surefoot
from surefoot.settings import StudyConfig


def study_names() -> list[str]:
    """The studies there are: the subpackages with a module `study`; imports none of them."""
    found = []
    for module in pkgutil.iter_modules(surefoot.__path__):
        folder = Path(surefoot.__path__[0]) / module.name
        if module.ispkg and (folder / "study.py").exists():
            found.append(module.name)
    return sorted(found)


def study_title(name: str) -> str:
    """The first line of a study's docstring, read without importing it."""
    source = (Path(surefoot.__path__[0]) / name / "study.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or name).splitlines()[0]


def study_config(name: str) -> type[StudyConfig] | None:
    """The class of a study's settings, from the module whence the study itself has it.

    None: the module `study` says its settings in another way than `STUDY = Study(..., config=NAME)` with a
    `NAME` that it imports; they are then known only by importing it.
    """
    source = (Path(surefoot.__path__[0]) / name / "study.py").read_text(encoding="utf-8")
    body = ast.parse(source).body
    where = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }
    for node in body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call):
            continue
        named = [t.id for t in node.targets if isinstance(t, ast.Name)]
        given = {k.arg: k.value for k in node.value.keywords}.get("config")
        if named == ["STUDY"] and isinstance(given, ast.Name) and given.id in where:
            module, written = where[given.id]
            found: type[StudyConfig] = getattr(importlib.import_module(module), written)
            return found
    return None
