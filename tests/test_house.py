"""The rules of the house, read off the source: who may import whom, and what an import may cost."""

import ast
import functools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import surefoot
from surefoot.study import study_names

ROOT = Path(__file__).parents[1]
SRC = Path(surefoot.__path__[0]).parent
METHODS = study_names()
# Import names of the libraries that come with an extra.
OPTIONAL = {
    "accelerate", "distributed", "dp_accounting", "flwr", "gguf", "lightning", "mlflow", "opacus", "ot",
    "peft", "pyriemann", "ray", "safetensors", "sentencepiece", "tensorboard", "trackio", "transformers",
}  # fmt: skip
# Code outside the package that shows people how to use it, and so may use only what is public.
SHOWN = [*sorted((ROOT / "apps").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass(frozen=True, order=True)
class Import:
    """One imported module, and who imports it: as it is written, and whence a package has what it exports."""

    who: str
    line: int
    written: str
    target: str

    def __str__(self) -> str:
        return f"{self.who}:{self.line} imports {self.written}"


def module_name(path: Path) -> str:
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Path]:
    return {module_name(p): p for p in sorted((SRC / "surefoot").rglob("*.py"))}


@functools.cache
def exports(package: str) -> dict[str, str]:
    """Where the names come from that a package exports lazily: its `__init__.pyi`."""
    stub = modules()[package].with_suffix(".pyi")
    if not stub.exists():
        return {}
    found = {}
    for node in ast.walk(ast.parse(stub.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{package}.{node.module}"
    return found


def targets(tree: ast.AST, package: str) -> Iterator[tuple[int, str, str]]:
    """Every module that a file imports, wherever in it: also in functions and for type checkers only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                written = whole if whole in modules() else base
                yield node.lineno, written, resolved(written, alias.name)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0] if node.args else None
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield node.lineno, str(first.value), str(first.value)


def resolved(written: str, name: str) -> str:
    """The module that has what is imported, where a package exports it."""
    if written in modules() and modules()[written].name == "__init__.py":
        return exports(written).get(name, written)
    return written


def imports_of(name: str, path: Path) -> list[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    return sorted({Import(name, *found) for found in targets(tree, package)})


@functools.cache
def imports() -> list[Import]:
    return [i for name, path in modules().items() for i in imports_of(name, path)]


def part_of(module: str) -> str:
    """The method of a module, "federated", "" for the core, or "elsewhere" for another library."""
    words = module.split(".")
    if words[0] != "surefoot":
        return "elsewhere"
    known = len(words) > 1 and words[1] in [*METHODS, "federated"]
    return words[1] if known else ""


def none(found: list[Import] | list[str]) -> None:
    assert not found, "\n" + "\n".join(map(str, found))


def test_no_method_imports_another():
    none(
        [
            i
            for i in imports()
            if part_of(i.who) in METHODS and part_of(i.target) in set(METHODS) - {part_of(i.who)}
        ]
    )


def test_what_federations_share_imports_no_method():
    none([i for i in imports() if part_of(i.who) == "federated" and part_of(i.target) in METHODS])


def test_the_core_imports_no_method():
    none(
        [
            i
            for i in imports()
            if part_of(i.who) == "" and part_of(i.target) not in ("", "elsewhere")
        ]
    )


def inner(i: Import) -> bool:
    """Whether an import reaches into a folder or file with a leading underscore from outside."""
    words = i.written.split(".")
    for at, word in enumerate(words):
        if word.startswith("_") and not word.startswith("__"):
            parent = words[:at]
            if i.who.split(".")[: len(parent)] != parent:
                return True
    return False


def test_inner_modules_are_imported_within_their_parent_folder_only():
    none([i for i in imports() if i.target.startswith("surefoot") and inner(i)])


def test_apps_examples_and_documents_use_what_is_public():
    found = [i for path in SHOWN for i in imports_of(str(path.relative_to(ROOT)), path)]
    for page in PAGES:
        for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
            found += [Import(page.name, *each) for each in targets(ast.parse(code), "")]
    assert [i for i in found if i.target.startswith("surefoot")]
    none([i for i in found if i.target.startswith("surefoot") and inner(i)])


def test_optional_libraries_are_imported_behind_doors_only():
    none(
        [
            i
            for i in imports()
            if i.target.split(".")[0] in OPTIONAL
            and part_of(i.who) != "federated"
            and "doors" not in i.who.split(".")
        ]
    )


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module (Tarjan), largest first."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(v: str) -> None:
        index[v] = low[v] = len(index)
        stack.append(v)
        for w in sorted(edges.get(v, ())):
            if w not in index:
                visit(w)
                low[v] = min(low[v], low[w])
            elif w in stack:
                low[v] = min(low[v], index[w])
        if low[v] == index[v]:
            at = stack.index(v)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for v in sorted(edges):
        if v not in index:
            visit(v)
    return sorted(found, key=len, reverse=True)


def test_a_circle_is_found_and_a_line_is_not():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_circle_of_imports():
    edges: dict[str, set[str]] = {name: set() for name in modules()}
    for i in imports():
        if i.target in edges and i.target != i.who:
            edges[i.who].add(i.target)
    none([" <-> ".join(circle) for circle in circles(edges)])


@pytest.mark.parametrize(
    "does",
    [
        "import surefoot",
        "from surefoot.cli import main; main(['--help'])",
        "from surefoot.cli import main; main(['--version'])",
        "from surefoot.cli import main; main(['list'])",
    ],
    ids=["import", "--help", "--version", "list"],
)
def test_neither_import_nor_help_brings_in_torch_or_an_extra(does):
    code = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n" + does
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    there = {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}
    assert "surefoot" in there
    assert not there & (OPTIONAL | {"torch"})


def test_no_name_is_undefined():
    """Axes of shapes are no variables, which is why the linters are told to skip such names everywhere."""
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F821",
        "--target-version",
    ]
    done = subprocess.run(
        [*command, "py311", "--output-format", "json", str(SRC / "surefoot")],
        capture_output=True,
        text=True,
    )
    undefined = []
    for hit in json.loads(done.stdout):
        place = hit["location"]
        line = Path(hit["filename"]).read_text(encoding="utf-8").splitlines()[place["row"] - 1]
        if line[: place["column"] - 1].count('"') % 2 == 0:
            undefined.append(f"{hit['filename']}:{place['row']} {hit['message']}")
    assert undefined == []


# ------------------------------------------------------------------ what is loaded and written

# What a call must say, whatever the default of the library is today.
SAID = {
    "from_pretrained": ("trust_remote_code", False),
    "from_config": ("trust_remote_code", False),
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
}


def loads(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that load something and do not say that they run none of its code."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        must = SAID.get(called) or SAID.get(called.rpartition(".")[2] if "." in called else "")
        if must is None:
            continue
        given = {k.arg: k.value for k in node.keywords}.get(must[0])
        if not (isinstance(given, ast.Constant) and given.value is must[1]):
            yield node.lineno, f"{called} does not say {must[0]}={must[1]}"


def test_a_load_that_does_not_say_so_is_found():
    text = (
        "AutoModel.from_pretrained(f)\nx.y.from_pretrained(f, trust_remote_code=True)\ntorch.load(f)\n"
        "A.from_pretrained(f, **o)\nA.from_pretrained(f, trust_remote_code=False)\n"
        "torch.load(f, weights_only=True)\nnp.load(f)\njson.load(f)\n"
    )
    assert [line for line, _ in loads(ast.parse(text))] == [1, 2, 3, 4, 7]


def test_no_load_runs_the_code_of_what_it_loads():
    found, calls = [], 0
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        calls += text.count(".from_pretrained(")
        found += [f"{name}:{line} {what}" for line, what in loads(ast.parse(text))]
    assert calls > 10
    none(found)


# Who writes a file that is not put in its place whole, and why that is right there.
IN_PLACE = {
    "surefoot.data.doors.gguf": "a stub in a temporary folder",
    "surefoot.data.download": "pip's requirements in a temporary folder",
    "surefoot.data.no_build": "a build that pip runs in a folder of its own",
    "surefoot.federated.keys": "keys of a federation's own folder",
    "surefoot.federated.launcher": "configuration of a federation's own folder",
    "surefoot.zeroth_order.experiments.memory": "a file of the kernel",
}
WRITERS = {"write_text", "write_bytes"}
# Libraries that write to the path they are given.
TO_PATHS = {"save_file", "torch.save", "np.savez", "np.savez_compressed", "pq.write_table"}
# Names that code of the house gives to what takes its place when it is whole.
STAGED = {"partial", "part", "file", "stream", "held", "out"}


def writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that write to a path which is no staged one."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        short = called.rpartition(".")[2]
        if isinstance(node.func, ast.Attribute) and short in WRITERS:
            target = node.func.value
        elif called in TO_PATHS or short == "save_file":
            at = 0 if short in ("savez", "savez_compressed") else 1
            target = node.args[at] if len(node.args) > at else node
        else:
            continue
        if not {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} & STAGED:
            yield node.lineno, f"{called} writes to {ast.unparse(target)}"


def test_a_write_in_place_is_found():
    text = (
        "path.write_text('x')\npartial.write_bytes(b'')\ntorch.save(s, path)\ntorch.save(s, file)\n"
        "save_file(t, folder / 'x')\nnp.savez(path, z=z)\nnp.savez(stream, z=z)\nwrite_text(path, 'x')\n"
    )
    assert [line for line, _ in writes(ast.parse(text))] == [1, 3, 5, 6]


def test_files_are_put_in_their_places_whole():
    found = {
        name: list(writes(ast.parse(path.read_text(encoding="utf-8"))))
        for name, path in modules().items()
    }
    none([f"{n}:{line} {what}" for n, v in found.items() if n not in IN_PLACE for line, what in v])
    assert {name for name, what in found.items() if what} == set(IN_PLACE), (
        "an exception that is none"
    )
