"""Optional libraries are imported behind doors alone, and a missing one gives one sentence."""

import ast
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import surefoot.lora

ROOT = Path(surefoot.lora.__file__).parent
OPTIONAL = {"peft", "transformers", "flwr", "safetensors", "accelerate", "bitsandbytes"}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
}


def imports(path):
    """(module, whether it is imported as the file is) of every import."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inner = {
        id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            yield name, id(node) not in inner


@pytest.mark.parametrize("name", sorted(n for n in FILES if not n.startswith("doors")))
def test_no_room_but_the_doors_imports_an_optional_library(name):
    found = {module.split(".")[0] for module, _ in imports(FILES[name])}
    assert not found & OPTIONAL


def test_no_circle_of_imports():
    """Modules that are imported as another one is, without those for typing: they have an order."""
    graph = {
        name: {
            module.removeprefix("surefoot.lora.")
            for module, now in imports(path)
            if now and module.removeprefix("surefoot.lora.") in FILES
        }
        for name, path in FILES.items()
    }
    assert "state" in graph["chain"]
    order = []
    while graph:
        free = sorted(name for name, needed in graph.items() if not needed - set(order))
        assert free, f"a circle among {sorted(graph)}"
        order += free
        graph = {name: needed for name, needed in graph.items() if name not in free}


DOORS = {
    "peft": [
        "from torch import nn; from surefoot.lora.doors.peft import with_lora; "
        "with_lora(nn.Linear(2, 2), 1, None)",
        "from surefoot.lora import ChainOfLora; ChainOfLora(None)",
    ],
    "transformers": ["from surefoot.lora import RacCallback"],
    "flwr": [
        "import surefoot.lora.federated", "from surefoot.lora.federated import RacStrategy",
    ],
}  # fmt: skip
EXTRA = {"peft": "llm", "transformers": "llm", "flwr": "federated"}


def test_a_missing_extra_is_one_sentence():
    """One process for all: what is asked for without one package may not have been loaded for another."""
    script = f"""
        import sys

        class Missing:
            package = None

            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == self.package:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        missing = Missing()
        sys.meta_path.insert(0, missing)
        from surefoot.errors import MissingExtraError
        import surefoot.lora.study, surefoot.lora.guarantee

        for missing.package, bodies in {DOORS!r}.items():
            assert missing.package not in sys.modules
            for body in bodies:
                try:
                    exec(body, {{}})
                except MissingExtraError as error:
                    print(f"{{missing.package}}: {{error}}")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    wanted = [package for package, bodies in DOORS.items() for _ in bodies]
    assert [line.partition(":")[0] for line in lines] == wanted
    for package, line in zip(wanted, lines, strict=True):
        assert f"needs {package}, which is not installed" in line
        assert f"pip install 'surefoot[{EXTRA[package]}]'" in line
