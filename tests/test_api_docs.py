"""The reference pages show everything that is exported, and say what each parameter is.

The docstrings are read by the program that makes the pages, through the same extension.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import griffe
import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "api").glob("*.md"))
SOURCES = ROOT / "src"
MANY = 3
"""Parameters from which on a callable must explain them one by one."""

LOADED = griffe.load(
    "surefoot",
    search_paths=[SOURCES],
    extensions=griffe.load_extensions(str(ROOT / "docs" / "_exports.py")),
)


def below(package):
    yield package
    for member in package.members.values():
        if isinstance(member, griffe.Module) and not member.name.startswith("_"):
            yield from below(member)


def names_of(module):
    """What a module offers: its exports, or where it states none, what it defines for others."""
    if module.exports is not None:
        return [str(name) for name in module.exports]
    own = (griffe.Function, griffe.Class)
    return [n for n, m in module.members.items() if isinstance(m, own) and not n.startswith("_")]


SHOWN = {m for p in PAGES for m in re.findall(r"^::: surefoot\.?(\S*)$", p.read_text(), re.M)}
# Every package that exports something, and the modules that have a section on a page.
PACKAGES = {m.path: m for m in below(LOADED) if m.is_init_module and m.exports is not None}
PACKAGES |= {m.path: m for m in below(LOADED) if m.path.removeprefix("surefoot.") in SHOWN}
# Modules that a package exports as such: surefoot.privacy.canaries.
MODULES = {
    f"{path}.{name}": package[name]
    for path, package in PACKAGES.items()
    for name, target in package.imports.items()
    if target == f"{path}.{name}" and name in package.exports
}


def documented(thing):
    """Parameters and attributes that a docstring explains, and fields with a docstring of their own."""
    found = set()
    if thing.docstring is not None:
        for section in thing.docstring.parse("numpy"):
            if section.kind.value in ("parameters", "other parameters", "attributes"):
                found |= {item.name.lstrip("*") for item in section.value}
    if thing.is_class and "dataclass" in thing.labels:
        found |= {n for n, a in thing.all_members.items() if a.is_attribute and a.docstring}
        # A dataclass takes the fields of its bases too; one that it states anew is its own to explain.
        for base in thing.resolved_bases:
            found |= documented(base) - set(thing.members)
    return found


def parameters(thing):
    given = [p.name.lstrip("*") for p in thing.parameters]
    return [name for name in given if name != "self" and not name.startswith("_")]


def unexplained(module):
    """Callables of many parameters, each with those that its docstring says nothing of."""
    found = {}
    for name in names_of(module):
        thing = module[name]
        thing = thing.final_target if isinstance(thing, griffe.Alias) else thing
        if not (thing.is_function or thing.is_class):
            continue
        takes = parameters(thing)
        if len(takes) >= MANY and (missing := [p for p in takes if p not in documented(thing)]):
            found[name] = missing
    return found


@pytest.mark.parametrize("path", sorted(PACKAGES | MODULES))
def test_every_parameter_is_explained(path):
    assert unexplained((PACKAGES | MODULES)[path]) == {}


def test_a_parameter_that_nobody_explains_is_found():
    source = '''
def f(a, b, *, c=0):
    """Add.

    Parameters
    ----------
    a, b
        Summands.
    """

def g(a, b):
    """Two are few."""
'''
    module = griffe.visit("m", filepath=Path("m.py"), code=source)
    assert unexplained(module) == {"f": ["c"]}


INHERITED = '''
from dataclasses import dataclass

@dataclass
class Base:
    """A base.

    Attributes
    ----------
    a
        Explained here.
    c
        So is this.
    """

    a: int
    b: int
    c: int

@dataclass
class Heir(Base):
    """More.

    Attributes
    ----------
    d
        Explained.
    """

    c: float
    d: int
'''


def test_a_field_is_explained_where_it_is_stated():
    source = {"__init__.py": INHERITED}
    with griffe.temporary_visited_package(
        "heirs", source, extensions=griffe.load_extensions()
    ) as module:
        assert unexplained(module) == {"Base": ["b"], "Heir": ["b", "c"]}


@pytest.mark.parametrize("path", sorted(p for p, m in PACKAGES.items() if m.is_init_module))
def test_the_pages_know_what_is_exported(path):
    package = PACKAGES[path]
    assert set(importlib.import_module(path).__all__) == set(names_of(package))
    # A module of the name of what it exports would take its place.
    modules = {n for n in names_of(package) if isinstance(package[n], griffe.Module)}
    assert {f"{path}.{n}" for n in modules} <= set(MODULES)


def test_every_package_has_its_place_on_a_page_in_the_navigation():
    assert {p.removeprefix("surefoot").lstrip(".") for p in PACKAGES | MODULES} <= SHOWN
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [p.name for p in PAGES if f"api/{p.name}" not in navigation] == []


def test_the_pages_build_strictly_and_load_nothing_from_elsewhere(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, timeout=600,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loads = r'<(?:script|img|iframe)[^>]*src="https?:|<link[^>]*rel="stylesheet"[^>]*href="https?:'
    for page in (tmp_path / "site").rglob("*.html"):
        assert re.findall(loads, page.read_text(encoding="utf-8")) == []
    html = (tmp_path / "site" / "api" / "barycenter" / "index.html").read_text(encoding="utf-8")
    assert 'id="surefoot.barycenter.suot_barycenter"' in html
    # What a class has from its bases is its own to whoever looks it up.
    html = (tmp_path / "site" / "api" / "zeroth_order" / "index.html").read_text(encoding="utf-8")
    for method in ("step", "estimate", "certificates"):
        assert f'id="surefoot.zeroth_order.LOZO.{method}"' in html
