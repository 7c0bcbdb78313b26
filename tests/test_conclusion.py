"""What a run says when parts of it say nothing: crashes, interrupts, misspelt names, missing extras."""

import json
import subprocess
import sys

import pytest

from surefoot import Guarantee, Part, Study, StudyConfig, run_study
from surefoot._run import environment
from surefoot.cli import main
from surefoot.errors import MissingExtraError, UnknownNameError, need

MODULE = '''"""Parts that fail in every way."""
from surefoot import Guarantee, Part, Study, StudyConfig


def good(config, seed, record):
    record.note(optimizer="none")
    for t in range(5):
        record.append(seed, t, q=0.5**t)


def bad(config, seed, record):
    raise RuntimeError("planted")


def stop(config, seed, record):
    raise KeyboardInterrupt


def promise(config, name="halves", quantity="q"):
    return [Guarantee(name, "q <= .6^t", "closed form", quantity, "upper", "every run",
                      lambda r: 0.6 ** r.curves("q").steps)]


def part(name, run=good, guarantees=promise, **more):
    return Part(name, name, run, guarantees, deterministic=True, **more)


PARTS = {
    "good": part("good"),
    "bad": part("bad", bad),
    "stop": part("stop", stop),
    "misspelt": part("misspelt", guarantees=lambda c: promise(c, quantity="qq")),
    "silent": part("silent", lambda config, seed, record: None),
    "announced": part("announced", expects={"thirds": "BROKEN"}),
    "marked": part("marked", guarantees=lambda c: promise(c, name="loss [train] [/b]")),
    "extra": part("extra", extras=("privacy",)),
    "table": part("table", tables=lambda c, r: 1 / 0),
}
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with studies of one's own in it, which is not on Python's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(tmp_path)])
    (tmp_path / "parts_that_fail.py").write_text(MODULE)
    made = []

    def study(name, *parts):
        listed = ", ".join(f'PARTS["{p}"]' for p in parts)
        (tmp_path / f"{name}.py").write_text(
            f'"""A study."""\nfrom parts_that_fail import *\n'
            f'STUDY = Study("{name}", "t", "none", StudyConfig, ({listed},))\n'
        )
        made.append(name)
        return name

    yield study
    for name in [*made, "parts_that_fail"]:
        sys.modules.pop(name, None)


def run(name, *more):
    return main(["run", name, "--jobs", "1", "--backend", "threading", *more])


def certificates(tmp_path, name):
    (file,) = (tmp_path / "runs" / name).glob("*/certificate.json")
    return json.loads(file.read_text())["certificates"]


def test_a_study_in_the_current_folder_is_found_without_naming_its_module(here, tmp_path):
    """In a process of its own, as the installed command: nothing has put the folder on the path."""
    name = here("mine_alone", "good")
    code = "import sys; sys.path = [p for p in sys.path if p]; from surefoot.cli import main; "
    done = subprocess.run(
        [sys.executable, "-c", f"{code}sys.exit(main(['run', '{name}', '--jobs', '2']))"],
        cwd=tmp_path, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "KEPT" in done.stdout


def test_a_part_whose_seeds_all_crash_takes_nothing_with_it(here, tmp_path, capsys):
    assert run(here("mine_crash", "bad", "good")) == 1
    out = capsys.readouterr()
    assert [c["verdict"] for c in certificates(tmp_path, "mine_crash")] == ["KEPT"]
    assert "its seed crashed: RuntimeError: planted" in " ".join(out.out.replace("│", " ").split())
    assert "RuntimeError: planted" in out.err
    page = next((tmp_path / "runs" / "mine_crash").glob("*/index.html")).read_text()
    assert "All its seeds crashed: RuntimeError: planted" in page


def test_an_interrupt_before_the_first_row_ends_with_130_and_what_was_done(here, tmp_path, capsys):
    assert run(here("mine_stop", "good", "stop")) == 130
    assert [c["verdict"] for c in certificates(tmp_path, "mine_stop")] == ["KEPT"]
    assert run(here("mine_stop_first", "stop")) == 130
    assert certificates(tmp_path, "mine_stop_first") == []


def test_a_quantity_that_no_record_holds_is_an_error_that_lists_those_there_are(
    here, tmp_path, capsys
):
    assert run(here("mine_misspelt", "misspelt", "good")) == 2
    assert "unknown quantity 'qq'; there are: q. Did you mean 'q'?" in capsys.readouterr().err
    (trace,) = (tmp_path / "runs" / "mine_misspelt").glob("*/problems/misspelt.txt")
    assert "Traceback" in trace.read_text()
    assert [c["part"] for c in certificates(tmp_path, "mine_misspelt")] == ["good"]


def test_a_part_that_promises_and_records_nothing_is_an_error(here, tmp_path, capsys):
    assert run(here("mine_silent", "silent", "good")) == 2
    assert "part silent of study mine_silent: UnknownNameError: unknown quantity 'q'" in (
        capsys.readouterr().err
    )
    assert [c["part"] for c in certificates(tmp_path, "mine_silent")] == ["good"]


def test_a_table_that_fails_takes_no_certificate_with_it(here, tmp_path, capsys):
    assert run(here("mine_table", "table")) == 2
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert [c["verdict"] for c in certificates(tmp_path, "mine_table")] == ["KEPT"]


def test_an_announcement_that_names_no_certificate_is_an_error(here, tmp_path, capsys):
    assert run(here("mine_announced", "announced")) == 2
    assert "announces 'thirds'; there are: halves" in capsys.readouterr().err


def test_a_name_with_brackets_is_shown_whole(here, tmp_path, capsys):
    assert run(here("mine_marked", "marked")) == 0
    assert "loss [train] [/b]" in capsys.readouterr().out


def test_a_part_without_its_extra_is_skipped_and_named(here, tmp_path, capsys, monkeypatch):
    there = environment.version_of
    monkeypatch.setattr(environment, "version_of", lambda p: None if p == "opacus" else there(p))
    name = here("mine_extra", "good", "extra")
    assert run(name) == 0
    out = capsys.readouterr()
    assert "pip install 'surefoot[privacy]'" in out.err
    assert "skipped" in out.out
    assert run(name, "--part", "extra") == 2
    assert "needs opacus, which is not installed" in capsys.readouterr().err
    assert run(here("mine_extra_alone", "extra")) == 2
    assert not (tmp_path / "runs" / "mine_extra_alone").exists()


def test_an_extra_that_does_not_exist_is_refused():
    with pytest.raises(UnknownNameError, match="privacy"):
        Part("p", "t", lambda c, s, r: None, extras=("privcy",))


def test_facts_come_through_a_run(here, tmp_path):
    name = here("mine_facts", "good")
    folder = run_study(name, backend="threading", jobs=1, out=tmp_path / "out")
    assert folder.record("good").fact("optimizer").all == ("none",)
    assert [c.verdict for c in folder.certificates()] == ["KEPT"]
    assert (folder.path / "index.html").exists()


def test_a_missing_extra_is_one_sentence():
    sentence = r"surefoot\.x needs no_such_package, .*\[llm\]"
    with (
        pytest.raises(MissingExtraError, match=sentence),
        need("no_such_package", extra="llm", part="surefoot.x"),
    ):
        import no_such_package  # noqa: F401
    with (
        pytest.raises(ModuleNotFoundError, match=r"surefoot\.no_such"),
        need("surefoot", extra="llm"),
    ):
        import surefoot.no_such  # noqa: F401


def test_a_study_made_on_the_spot_runs_in_other_processes(tmp_path):
    def halve(config, seed, record):
        for t in range(4):
            record.append(seed, t, q=0.5**t)

    promise = Guarantee("g", "s", "s", "q", "upper", "every run", lambda r: 1.0)
    study = Study(
        "on_the_spot", "t", "none", StudyConfig,
        (Part("p", "t", halve, lambda config: [promise], deterministic=True),),
    )  # fmt: skip
    folder = run_study(study, jobs=2, out=tmp_path)
    assert folder.status["failed"] == []
    assert [c.verdict for c in folder.certificates()] == ["KEPT"]
