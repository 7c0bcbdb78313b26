"""Every public function that returns guarantees of a record is a member of the contract."""

import ast
from pathlib import Path

from tests.contract.guarantees import PROMISES

import surefoot

RETURNED = {"Guarantee", "tuple[Guarantee, Guarantee]", "tuple[Guarantee, ...]", "list[Guarantee]"}


def factories():
    """(module, function) of each, by its return annotation; what a study makes of them is apart."""
    root = Path(surefoot.__path__[0])
    for path in sorted(root.rglob("*.py")):
        words = path.relative_to(root).with_suffix("").parts
        if "experiments" in words or words[-1] == "study":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                returns = "" if node.returns is None else ast.unparse(node.returns)
                if returns in RETURNED:
                    yield ".".join(["surefoot", *words]), node.name


def test_every_factory_is_a_member():
    there = set(factories())
    assert len(there) >= 25
    assert there == {(p.factory.__module__, p.factory.__name__) for p in PROMISES}
