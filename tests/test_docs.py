"""What the documents show works when pasted, their links lead somewhere, and no study is left out.

Fences carry a tag. `python` blocks run and print a verdict; `py` are fragments of a program of the
reader's and must be Python; `sh` are commands; `console` is a session, whose commands run one after
another in a folder and say what is shown (`...` stands for anything); `text` and `toml` are neither. A
word of capitals in a command (MODULE, CHECKPOINT) stands for what the reader has, and a comment with the
word "network" says that it needs one: such a command cannot run here, and its flags are looked up in its
--help.
"""

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from surefoot.cli import main
from surefoot.study import study_names

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.S | re.M)
PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_.:/-]+")
DICTATED = re.compile(r"into `(\w+\.py)`[^\n]*:\n\n```python\n(.*?)^```$", re.S | re.M)
EXIT_CODE = re.compile(r"exit code (\d+)")
# Commands of more than a few seconds: run by `make acceptance`.
SLOW = re.compile(
    r"surefoot (run (?!halving)|federate|privacy counterexample|privacy epsilon .*--schedule)"
)
# What PEFT 0.19 says of any model that was not loaded from a folder.
OF_PEFT = "Could not find a config file in "


def shown(page):
    return str(page.relative_to(ROOT))


def blocks(tag):
    """(name, text) of every fenced block with this tag."""
    return [
        (f"{shown(page)}-{i}", text)
        for page in PAGES
        for i, (found, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
        if found == tag
    ]


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_fence_says_what_it_holds(page):
    text = page.read_text(encoding="utf-8")
    tags = [tag for tag, _ in FENCE.findall(text)]
    assert set(tags) <= {"python", "py", "sh", "console", "text", "toml"}, tags
    assert len(re.findall(r"^```", text, re.M)) == 2 * len(tags)


@pytest.mark.parametrize("code", [pytest.param(text, id=name) for name, text in blocks("python")])
def test_examples_run_when_pasted(code, tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", f"ignore:{OF_PEFT}:UserWarning", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert re.search("KEPT|BROKEN|UNDECIDED|VACUOUS|NOT_PROMISED", done.stdout)


@pytest.mark.parametrize("code", [pytest.param(text, id=name) for name, text in blocks("py")])
def test_fragments_are_python(code):
    ast.parse(code)


SESSION = """
surefoot() {{ {python} -m surefoot "$@"; }}
cd {folder}
{lines}
"""
MARK = "=== said ==="


def told(session):
    """(command, lines that it shows) of a session, in order."""
    found = []
    for line in session.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def shows(said, lines):
    """Whether the lines stand in what was said, in this order."""
    patterns = [
        re.compile(".*?".join(re.escape(part.strip()) for part in line.split("...")))
        for line in lines
    ]
    left = iter(said.splitlines())
    return all(any(pattern.search(line) for line in left) for pattern in patterns)


def test_a_session_that_says_something_else_is_told():
    assert told("$ a b\nx ...\n$ c") == [("a b", ["x ..."]), ("c", [])]
    assert shows("one\nfound 3 files\nend", ["found ... files", "end"])
    assert not shows("end\nfound 3 files", ["found ... files", "end"])
    assert not shows("found 3", ["found ... files"])


@pytest.mark.parametrize(
    "session", [pytest.param(text, id=name) for name, text in blocks("console")]
)
def test_a_session_says_what_is_shown(session, tmp_path):
    commands = told(session)
    lines = "\n".join(f"{command}\necho '{MARK}'" for command, _ in commands)
    script = SESSION.format(
        python=shlex.quote(sys.executable), folder=shlex.quote(str(tmp_path)), lines=lines
    )
    done = subprocess.run(
        ["bash", "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    for (command, expected), said in zip(commands, done.stdout.split(MARK), strict=False):
        assert shows(said, expected), f"$ {command}\n{said}"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


# -- every study has its place ----------------------------------------------------------------------------


@pytest.mark.parametrize("study", study_names())
def test_every_study_has_its_page_row_and_lines(study):
    page = f"methods/{study}.md"
    assert (ROOT / "docs" / page).exists(), f"docs/{page} is missing"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = rf"^\| \[`surefoot\.{study}`\]\(docs/{page}\) (\| [^|]+ ){{3}}\|$"
    assert re.search(row, readme, re.M), f"README.md has no row of surefoot.{study}"
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(rf"^ +- [^:]+: {page}$", nav, re.M), f"mkdocs.yml has no line for {page}"
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert f"]({page})" in index, f"docs/index.md does not link {page}"


def test_every_page_of_a_method_is_of_a_study():
    assert {p.stem for p in (ROOT / "docs" / "methods").glob("*.md")} == set(study_names())


# -- commands ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """One line that a reader would type."""

    where: str
    words: tuple[str, ...]
    comment: str

    def __str__(self):
        return f"{self.where}: {shlex.join(self.words)}"

    @property
    def runs_here(self):
        return "network" not in self.comment and not any(map(PLACEHOLDER.fullmatch, self.words))

    @property
    def slow(self):
        return SLOW.match(" ".join(self.words)) is not None


def commands():
    found = []
    for where, text in blocks("sh"):
        for line in text.replace("\\\n", " ").splitlines():
            code, _, comment = line.partition(" #")
            for part in code.split(" && "):
                words = tuple(shlex.split(part))
                if words:
                    found.append(Command(where, words, comment))
    for page in PAGES:
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        for code in re.findall(r"`(surefoot [^`]+)`", text):
            found.append(Command(f"{shown(page)}-inline", tuple(shlex.split(code)), "prose"))
    return list({c.words: c for c in reversed(found)}.values())[::-1]


COMMANDS = commands()
OURS = [c for c in COMMANDS if c.words[0] == "surefoot"]
# What stands in a sentence is a mention, and may leave out what a command needs.
TYPED = [c for c in OURS if c.comment != "prose" and c.runs_here]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder as the reader has it: the apps, the files that the pages dictate, and a run made before."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(ROOT / "apps", folder / "apps")
    for page in PAGES:
        for name, code in DICTATED.findall(page.read_text(encoding="utf-8")):
            (folder / name).write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "surefoot.cli", "run", "halving", "--backend", "threading"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("command", [c for c in TYPED if not c.slow], ids=str)
def test_commands_run_when_pasted(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    try:
        code = main(list(command.words[1:]))
    except SystemExit as left:
        code = left.code or 0
    told = EXIT_CODE.search(command.comment)
    assert code == (int(told[1]) if told else 0), capsys.readouterr().err
    assert capsys.readouterr().out.strip()


@pytest.mark.acceptance
@pytest.mark.parametrize("command", [c for c in TYPED if c.slow], ids=str)
def test_long_commands_run_when_pasted(command, place):
    """At the quick size, whatever size the page shows."""
    words = list(command.words[1:])
    if "--size" in words:
        words[words.index("--size") + 1] = "quick"
    done = subprocess.run(
        [sys.executable, "-m", "surefoot.cli", *words],
        cwd=place, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = EXIT_CODE.search(command.comment)
    assert done.returncode == (int(told[1]) if told else 0), done.stderr


@pytest.mark.parametrize("command", OURS, ids=str)
def test_flags_of_a_command_are_in_its_help(command, place, capsys, monkeypatch):
    monkeypatch.chdir(place)
    if command.words == ("surefoot",):
        return
    words, flags = [], []
    for word in command.words[1:]:
        if word.startswith("--"):
            flags.append(word)
        elif not flags:
            words.append(word)
    if words[0] == "run":
        words[1:] = ["halving" if PLACEHOLDER.fullmatch(w) else w for w in words[1:2]]
    with pytest.raises(SystemExit) as left:
        main([*words, "--help"])
    text = capsys.readouterr().out
    assert left.value.code == 0, text
    for flag in flags:
        assert re.search(rf"{flag}\b", text), f"{flag} is not in the help of surefoot {words}"
    assert text.startswith("usage: surefoot")


def test_there_are_commands_of_each_kind():
    """So that a change of the convention cannot empty a list."""
    assert len(OURS) >= 20
    assert len([c for c in TYPED if not c.slow]) >= 5
    assert [c for c in TYPED if c.slow]
    assert [c for c in OURS if c.comment != "prose" and not c.runs_here]


OTHERS = [
    pytest.param(c, id=str(c), marks=[pytest.mark.acceptance] * c.words[0].startswith("flower"))
    for c in COMMANDS
    if c.words[0] != "surefoot"
]


@pytest.mark.parametrize("command", OTHERS)
def test_commands_of_others_are_spelt_right(command):
    """What can be known of them without running them; a new kind must be taught here."""
    first, *rest = command.words
    if first == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = re.findall(r"^([a-z-]+):", makefile, re.M)
        settings = [word.partition("=")[0] for word in rest if "=" in word]
        assert {word for word in rest if "=" not in word} <= set(targets)
        assert all(f"$({name})" in makefile for name in settings)
    elif first == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
            "optional-dependencies"
        ]
        assert rest[0] == "install"
        for name in re.findall(r"\[([a-z,]+)\]", rest[-1]):
            assert set(name.split(",")) <= set(extras)
    elif first == "export":
        assert all(re.fullmatch(r"[A-Z_]+=\S+", word) for word in rest)
    elif first in ("flower-superlink", "flower-supernode"):
        known = subprocess.run(
            [Path(sys.executable).with_name(first), "--help"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for word in rest:
            assert not word.startswith("--") or re.search(rf"{word}\b", known.stdout), word
    else:
        assert (first, rest[0]) in {("git", "clone"), ("cd", "surefoot")}, "teach this test"
