"""The versions that are declared, tested and written down are the same ones."""

import re

import pytest
from tests.versions import EXTRAS, PAGE, ROOT, declared, numbers, project, raised, rows

CONSTRAINTS = ROOT / "constraints.txt"


def pinned():
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if "==" in line)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def problems(page, floors, pins):
    """Sentences on each row that does not say what is declared, or was not tested there."""
    table = rows(page)
    found = [f"{name} has no row" for name in floors.keys() - table.keys()]
    found += [f"{name} is not declared" for name in table.keys() - floors.keys()]
    for name, (floor, oldest, newest) in table.items():
        if floors.get(name, floor) != floor:
            found.append(f"{name} is declared from {floors[name]}, the table says {floor}")
        if name == "torch":
            if {oldest, newest} != {pins[name]}:
                found.append(f"torch is pinned at {pins[name]}")
            continue
        if numbers(oldest) != numbers(floor):
            found.append(f"{name} was tested from {oldest}, not from {floor}")
        if numbers(newest) < numbers(pins[name.lower()]):
            found.append(f"{name} was tested up to {newest}, {pins[name.lower()]} is pinned")
    return sorted(found)


def test_the_table_holds_what_is_declared_and_pinned():
    assert problems(PAGE.read_text(encoding="utf-8"), declared(project()), pinned()) == []


@pytest.mark.parametrize(
    ("floor", "row", "pin", "said"),
    [
        ("1.2", "| `a` | 1.2 | 1.2.0 | 2.0 |", "2.0", []),
        ("1.3", "| `a` | 1.2 | 1.2.0 | 2.0 |", "2.0", ["a is declared from 1.3, the table says 1.2"]),
        ("1.2", "| `a` | 1.2 | 1.2.1 | 2.0 |", "2.0", ["a was tested from 1.2.1, not from 1.2"]),
        ("1.2", "| `a` | 1.2 | 1.2 | 2.0 |", "2.1", ["a was tested up to 2.0, 2.1 is pinned"]),
        ("1.2", "| `b` | 1.2 | 1.2 | 2.0 |", "2.0", ["a has no row", "b is not declared"]),
    ],
)  # fmt: skip
def test_a_row_that_is_wrong_is_told(floor, row, pin, said):
    assert problems(row, {"a": floor}, {"a": pin, "b": pin}) == said


def test_what_another_package_raises_is_told():
    floors = {"a": "1.2", "B": "2.0", "ray": "1.0", "trackio": "0.4"}
    assert raised(floors, {"a": "1.2.0", "b": "2.0", "ray": "3.0"}) == []
    (said,) = raised(floors, {"a": "1.2", "b": "2.0.1", "ray": "1.0"})
    assert said.startswith("B is declared from 2.0, and 2.0.1 was installed")


def test_a_dependency_without_a_lowest_version_is_told():
    wrong = {"dependencies": ["a>=1.0", "b"], "optional-dependencies": {}}
    with pytest.raises(ValueError, match="'b' of pyproject.toml is not of the form"):
        declared(wrong | {"optional-dependencies": {key: [] for key in EXTRAS}})


def test_every_python_that_is_declared_has_its_classifier():
    found = [c.rpartition(" ")[2] for c in project()["classifiers"] if "Python :: 3." in c]
    assert found == ["3.11", "3.12", "3.13"]
    assert project()["requires-python"] == f">={found[0]}"
    page = PAGE.read_text(encoding="utf-8")
    assert "Python 3.11, 3.12 and 3.13" in page
