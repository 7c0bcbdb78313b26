"""All that is wrong with a command line is said at once, under its flags, before any work: exit code 2."""

import re
from dataclasses import dataclass

import pytest
import tyro

from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.options import called, flagged, flags, parsed
from surefoot._numerics.refusing import gathered
from surefoot.cli import main
from surefoot.errors import ArgumentError, SurefootError

# A command line, and the flags that its one error names, in order.
WRONG = [
    ("privacy epsilon --sigma -1 --q 0.1 --steps 3", ["--sigma"]),
    ("privacy epsilon --sigma nan --q 2 --steps -3 --delta 2 --momentum -1",
     ["--sigma", "--q", "--steps", "--momentum", "--delta"]),
    ("privacy calibrate --epsilon -1 --delta 0 --q inf --steps 3", ["--epsilon", "--delta", "--q"]),
    ("privacy curve --sigma -1 --q 2 --steps 5:1 --points 0", ["--sigma", "--q", "--steps", "--points"]),
    ("privacy from-opacus nofile --delta 1", ["--delta"]),
    ("privacy audit nofile --delta 1 --k 0 --confidence 2 --sigma -1",
     ["--sigma", "--delta", "--k", "--confidence"]),
    ("privacy audit-train m:f --m 0 --shadow -1", ["--m", "--shadow"]),
    ("privacy counterexample encoding --runs 1 --seed -1", ["--runs", "--seed"]),
    ("run nesterov --seeds -1", ["--seeds"]),
    ("run nesterov --seeds 0 --confidence nan --jobs 0", ["--seeds", "--confidence", "--jobs"]),
    ("run all --max-seeds 3", ["--max-seeds"]),
    ("compact no.csv --target a --max-params 0 --confidence 3 --steps 0",
     ["--max-params", "--confidence", "--steps"]),
    ("architecture pretrain --steps 0 --networks 0", ["--steps", "--networks"]),
    ("zo replay a b c --upto -1", ["--upto"]),
    ("replay a b c --upto -1", ["--upto"]),
    ("federate simulate app --partitions 0 --rounds -1 --timeout nan --set x",
     ["--partitions", "--rounds", "--timeout", "--set"]),
    ("in-context probe m:f --dimension 0 --examples -1 --confidence 1.5",
     ["--dimension", "--examples", "--confidence"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "named"), WRONG, ids=[w for w, _ in WRONG])
def test_every_fault_is_named_by_its_flag(words, named, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1, "one line"
    assert re.findall(r"(--[\w-]+) (?:must|is)", said) == named
    assert list(tmp_path.iterdir()) == [], "work was begun"


@pytest.mark.parametrize("words", ["run nesterov --seeds x", "privacy counterexample nonsense"])
def test_what_cannot_be_read_is_the_parsers_to_say(words, capsys):
    with pytest.raises(SystemExit) as error:
        main(words.split())
    assert error.value.code == 2
    assert "seeds" in (said := capsys.readouterr().err) or "nonsense" in said


@dataclass(frozen=True)
class Inner:
    rate: float = 0.5

    def __post_init__(self):
        check_number("rate", self.rate, least=0, most=1)


@dataclass(frozen=True)
class Command:
    file: tyro.conf.Positional[str]
    inner: tyro.conf.OmitArgPrefixes[Inner]
    how_many: int = 3
    ARGUMENTS = {"n": "how_many"}  # noqa: RUF012 - as commands have it

    def __post_init__(self):
        check_choice("file", self.file, ("a", "b"))
        check_number("how_many", self.how_many, least=1, whole=True)

    def __call__(self):
        raise ArgumentError("n", "must be even, got 3")


def test_faults_of_all_dataclasses_are_one_error():
    with pytest.raises(SurefootError) as error:
        parsed(lambda: tyro.cli(Command, args=["c", "--rate", "2", "--how-many", "0"]))
    assert str(error.value) == (
        "--rate must be between 0 and 1, got 2.0; FILE must be one of 'a', 'b', got 'c'; "
        "--how-many must be a whole number of at least 1, got 0"
    )
    made = parsed(lambda: tyro.cli(Command, args=["a"]))
    assert made == Command("a", Inner())
    with pytest.raises(SurefootError, match=r"^--how-many must be even"):
        called(made)


def test_what_comes_of_a_refused_value_is_no_second_sentence():
    def parse():
        check_number("rate", -1, least=0)
        raise ZeroDivisionError

    with pytest.raises(SurefootError, match=r"^rate must be at least 0 and finite, got -1$"):
        parsed(parse)
    with pytest.raises(ZeroDivisionError):
        parsed(lambda: 1 / 0)


def test_only_a_known_argument_becomes_a_flag():
    names = dict(flags(Command("a", Inner())))
    assert names == {"file": "FILE", "rate": "--rate", "how_many": "--how-many", "n": "--how-many"}
    assert flagged("rate must be", names) == "--rate must be"
    assert flagged("rates must be", names) == "rates must be"
    assert flagged("the file is not there", names) == "the file is not there"


def test_outside_a_command_line_the_first_fault_is_raised():
    with gathered() as faults:
        assert check_number("rate", "x") == "x"
    assert [f.argument for f in faults] == ["rate"]
    with pytest.raises(ArgumentError):
        check_number("rate", "x")
