"""The table of versions in docs/versions.md: what is declared, and what was tested of it.

`python tests/versions.py` takes the versions from .venv-oldest and .venv-newest, which `make test-oldest` and
`make test-newest` leave behind, and prints the rows. `--raised FOLDER` names what another package has raised
above its declared version in an environment that was made of the lowest ones, and exits with 1.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "versions.md"
# torch is the pinned one; the others are asked for by flwr, beside which they were not tried at their lowest.
HELD_UP = ("torch", "ray", "alembic", "SQLAlchemy")
EXTRAS = ("llm", "federated", "privacy", "lightning", "cluster", "sinks")


def declared(project: dict) -> dict[str, str]:
    """{package: lowest version}, of the core and of the extras that users install."""
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    pattern = re.compile(r"([A-Za-z0-9_.-]+)(?:\[[a-z,]+\])?>=([0-9.]+)")
    found = {}
    for each in wanted:
        match = pattern.fullmatch(each)
        if match is None:
            raise ValueError(f"{each!r} of pyproject.toml is not of the form NAME>=VERSION")
        found[match[1]] = match[2]
    return found


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def rows(page: str) -> dict[str, tuple[str, str, str]]:
    """{package: (declared, oldest, newest)} as a page has them."""
    found = re.findall(r"^\| `([^`]+)` \| ([0-9.]+) \| (\S+) \| (\S+) \|$", page, re.M)
    return {name: (floor, oldest, newest) for name, floor, oldest, newest in found}


def numbers(version: str) -> tuple[int, ...]:
    """The release of a version, without trailing zeros."""
    found = [int(n) for n in re.match(r"[0-9]+(\.[0-9]+)*", version)[0].split(".")]
    while found and not found[-1]:
        found.pop()
    return tuple(found)


def installed(folder: Path) -> dict[str, str]:
    """{name in lower case: version} of a virtual environment."""
    found = {}
    for place in folder.glob("lib/python*/site-packages"):
        for each in importlib.metadata.distributions(path=[str(place)]):
            name = re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower()
            found[name] = each.version.partition("+")[0]
    return found


def raised(floors: dict[str, str], found: dict[str, str]) -> list[str]:
    """Sentences on what is installed above its declared version, and is not known to be."""
    return [
        f"{name} is declared from {floor}, and {found[name.lower()]} was installed: another package wants it"
        for name, floor in floors.items()
        if name not in HELD_UP
        and name.lower() in found
        and numbers(found[name.lower()]) > numbers(floor)
    ]


def main() -> int:
    if "--raised" in sys.argv:
        wrong = raised(declared(project()), installed(ROOT / sys.argv[-1]))
        print(*wrong, sep="\n", end="\n" if wrong else "")
        return int(bool(wrong))
    oldest, newest = (installed(ROOT / f".venv-{which}") for which in ("oldest", "newest"))
    for name, floor in declared(project()).items():
        print(f"| `{name}` | {floor} | {oldest[name.lower()]} | {newest[name.lower()]} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
