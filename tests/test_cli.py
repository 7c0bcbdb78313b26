"""The command line as a person or a script meets it."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from surefoot.cli import main

TOYS = Path(__file__).parent / "toys"


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))


def test_help_needs_no_torch():
    code = (
        "import sys; from surefoot.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: assert e.code == 0\n"
        "heavy = {'torch', 'pandas', 'plotly', 'sklearn', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=600)


def test_help_is_quick_beside_importing_torch():
    def seconds(*words: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=600)
        return time.perf_counter() - started

    helped = min(seconds("-m", "surefoot.cli", "--help") for _ in range(3))
    assert helped < 0.6 * min(seconds("-c", "import torch") for _ in range(2))


def test_list(capsys):
    assert main(["list", "--json"]) == 0
    assert "nesterov" in json.loads(capsys.readouterr().out)


def test_doctor(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["packages"]["torch"]
    assert set(found["extras"]) == {"llm", "federated", "privacy", "cluster", "sinks", "bench"}
    assert main(["doctor"]) == 0
    assert "cache" in capsys.readouterr().out


def test_run_prints_table_and_report(toys, tmp_path, capsys):
    words = ["run", "toy_study", "--out", str(tmp_path), "--part", "noisy", "planted"]
    assert main([*words, "--backend", "threading"]) == 0
    out = capsys.readouterr().out
    assert "KEPT" in out
    assert "(announced)" in out
    report = Path(out.rsplit("report: ", 1)[1].strip())
    assert report.exists()
    assert (tmp_path / "index.html").exists()


@pytest.mark.parametrize(
    "flags",
    [
        ["--part", "noisy", "--part", "planted"],
        ["--part", "noisy", "--seed", "3", "--part=planted"],
        ["--part", "noisy", "planted", "--seed", "3"],
    ],
)
def test_parts_named_in_several_flags_all_run(toys, tmp_path, capsys, flags):
    words = ["run", "toy_study", "--out", str(tmp_path), "--backend", "threading", "--json"]
    assert main([*words, *flags]) == 0
    (document,) = json.loads(capsys.readouterr().out)
    assert {c["part"] for c in document["certificates"]} == {"noisy", "planted"}


def test_the_package_runs_as_a_module():
    done = subprocess.run(
        [sys.executable, "-m", "surefoot", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("surefoot ")


def test_run_json_is_json_alone(toys, tmp_path, capsys):
    words = ["run", "toy_study", "--out", str(tmp_path), "--part", "noisy", "--json"]
    assert main([*words, "--backend", "threading"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document[0]["certificates"][0]["verdict"] == "KEPT"


def test_exit_code_1_for_a_crash_or_a_surprise(toys, tmp_path, capsys):
    words = ["run", "toy_study", "--out", str(tmp_path), "--backend", "threading", "--part"]
    assert main([*words, "crash"]) == 1
    assert "the toy breaks at seed 1" in capsys.readouterr().err
    import toy_study

    part = toy_study.STUDY.parts[1]
    expects = dict(part.expects)
    part.expects.clear()
    try:
        assert main([*words, "planted"]) == 1
    finally:
        part.expects.update(expects)


def test_resume(toys, tmp_path, capsys, monkeypatch):
    words = ["run", "toy_study", "--out", str(tmp_path), "--backend", "threading"]
    assert main([*words, "--part", "crash"]) == 1
    folder = next(tmp_path.glob("toy/*"))
    (tmp_path / "mended").touch()
    monkeypatch.setenv("TOY_MENDED", str(tmp_path / "mended"))
    assert main([*words, "--resume", str(folder)]) == 0
    assert len(list(tmp_path.glob("toy/*"))) == 1
    capsys.readouterr()
    assert main(["report", "--json", str(folder)]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert run["certificates"][0]["verdict"] == "KEPT"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "nesterof"], "unknown study 'nesterof'"),
        (["run", "toy_study", "--backend", "spark"], "unknown backend 'spark'; there are: dask"),
        (["run", "toy_study", "--part", "nope"], "unknown part of study toy 'nope'"),
        (["run", "toy_study", "--resume", "no-such-folder"], "no-such-folder is not a folder"),
        (["report", "no-such-folder"], "neither a run of surefoot nor a folder that holds runs"),
        (["data", "fetch", "cifar"], "unknown data set 'cifar'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(toys, tmp_path, monkeypatch, capsys, words, says):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "toy_study", "--size", "huge"], "quick"),
        (["run", "toy_study", "--seeds", "0"], "seeds must be a whole number of at least 1, got 0"),
        (["run", "toy_study", "--jobs", "0"], "jobs must be -1 or at least 1, got 0"),
        (["run", "toy_study", "--confidence", "2"], "confidence must be in [0.5, 1), got 2.0"),
        (["frobnicate"], "doctor"),
    ],
)
def test_bad_flags_exit_2(toys, capsys, words, says):
    try:
        code = main(words)
    except SystemExit as stop:  # of the parser
        code = stop.code
    assert code == 2
    captured = capsys.readouterr()
    # The parser wraps its messages in a box.
    text = " ".join((captured.err + captured.out).replace("│", " ").split())
    assert says in text


def test_damaged_run_folders_exit_2(toys, tmp_path, capsys):
    words = ["run", "toy_study", "--out", str(tmp_path), "--backend", "threading"]
    assert main([*words, "--part", "planted"]) == 0
    folder = next(tmp_path.glob("toy/*"))
    capsys.readouterr()
    certificate = folder / "certificate.json"
    whole = certificate.read_text()
    certificate.write_text(whole[: len(whole) // 2])
    assert main(["report", "--json", str(folder)]) == 2
    assert "truncated" in capsys.readouterr().err
    certificate.write_text(whole.replace('"format": 1', '"format": 99', 1))
    assert main(["report", "--json", str(folder)]) == 2
    assert "upgrade surefoot" in capsys.readouterr().err
    certificate.write_text(whole)
    (folder / "config.json").write_text('{"format": 1')
    assert main(["report", str(folder)]) == 2
    assert "truncated" in capsys.readouterr().err
