"""What the help of a study costs, that it is the help of that study, and that one is told how to go on."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from surefoot._run.execution import Execution
from surefoot._run.folder import RunFolder
from surefoot._run.found import study_config
from surefoot._run.parsing import settings_of
from surefoot._run.plan import resume
from surefoot.cli import main
from surefoot.study import load_study, study_names

TOYS = Path(__file__).parent / "toys"
HEAVY = {"torch", "pandas", "sklearn", "plotly", "transformers", "scipy"}


def test_help_of_run_lists_the_studies(capsys):
    with pytest.raises(SystemExit) as left:
        main(["run", "--help"])
    assert left.value.code == 0
    said = capsys.readouterr().out
    for name in study_names():
        assert f"- {name}: " in said
    assert "usage: surefoot run [-h] NAME" in said


def test_help_of_a_study_imports_nothing_heavy():
    code = (
        "import contextlib, io, json, sys\n"
        "from surefoot.cli import main\n"
        "from surefoot._run.found import study_names\n"
        "for name in (*study_names(), 'all'):\n"
        "    told = io.StringIO()\n"
        "    with contextlib.redirect_stdout(told), contextlib.suppress(SystemExit):\n"
        "        main(['run', name, '--help'])\n"
        "    assert f'usage: surefoot run {name}' in told.getvalue(), told.getvalue()\n"
        "print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(json.loads(done.stdout))


@pytest.mark.parametrize("name", study_names())
def test_flags_are_those_of_the_study_itself(name):
    """The help cannot drift: both have the very same class."""
    assert study_config(name) is load_study(name).config
    assert settings_of(name) is load_study(name).config


def test_settings_said_in_another_way_are_found_by_importing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(TOYS))
    assert [f.name for f in dataclasses.fields(settings_of("toy_study"))][-2:] == ["lr", "noise"]
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "study.py").write_text("STUDY = make()\n")
    monkeypatch.setattr("surefoot.__path__", [str(tmp_path)])
    assert study_config("odd") is None


def test_a_bad_flag_is_refused_before_anything_heavy_is_imported():
    code = (
        "import sys\nfrom surefoot.cli import main\n"
        "assert main(['run', 'nesterov', '--seeds', '0']) == 2\n"
        f"assert not {HEAVY!r} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--seeds" in done.stderr


def test_an_interrupted_run_says_where_it_is_and_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(TOYS))
    out = tmp_path / "my runs"
    words = ["run", "toy_study", "--part", "noisy", "--backend", "threading", "--out", str(out)]

    def interrupted(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("surefoot._run.execute.execute", interrupted)
        assert main([*words, "--seeds", "2", "--confidence", "0.9"]) == 130
    said = capsys.readouterr().err.strip().splitlines()[-1]
    (folder,) = RunFolder.paths(out)
    command = said.partition("to go on: ")[2]
    assert said.startswith(f"interrupted; what was done is in {folder}; ")
    assert command == (
        f"surefoot run toy_study --resume '{folder}' --backend threading --confidence 0.9"
    )
    # As a shell would have it.
    split = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True
    )
    assert main(split.stdout.splitlines()[1:]) == 0
    assert RunFolder.open(folder).status["state"] == "finished"


def test_what_was_not_said_is_not_repeated(tmp_path):
    folder = RunFolder(tmp_path)
    study = load_study("kan")
    plain = f"surefoot run kan --resume {tmp_path}"
    assert resume(study, folder, Execution(out=tmp_path)) == plain
    more = Execution(until_decided=True, max_seeds=40)
    assert resume(study, folder, more) == f"{plain} --until-decided --max-seeds 40"


def test_replay_stands_in_the_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "`zo replay` makes weights again" in said


COMPLETE = """
source {script}
by=$(complete -p surefoot | sed 's/.*-F \\([^ ]*\\).*/\\1/')
try() {{
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); $by; echo "${{COMPREPLY[*]}}"
}}
try surefoot ''
try surefoot run ''
try surefoot run reparam --data ''
try surefoot run zeroth_order --
try surefoot zo ''
try surefoot privacy epsilon --
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_studies_and_flags(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "surefoot.bash"
    script.write_text(capsys.readouterr().out)
    done = subprocess.run(
        ["bash", "-c", COMPLETE.format(script=script)], capture_output=True, text=True, check=True
    )
    top, run, data, flags, zo, epsilon = done.stdout.splitlines()
    assert {"run", "report", "privacy", "zo", "completion"} <= set(top.split())
    assert {*study_names(), "all"} <= set(run.split())
    assert data.split() == ["mnist5k", "mnist", "fashion"]
    own = {"--" + f.name.replace("_", "-") for f in dataclasses.fields(settings_of("zeroth_order"))}
    assert own | {"--backend", "--resume"} <= set(flags.split())
    assert "replay" in zo.split()
    assert "--sigma" in epsilon.split()


def test_zsh_gets_a_script(capsys):
    assert main(["completion", "zsh"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("#compdef surefoot")
    assert all(name in said for name in study_names())


FISHED = """
source {script}
complete -C "surefoot "
echo NEXT
complete -C "surefoot run "
echo NEXT
complete -C "surefoot run reparam --data "
"""


def fish_script(tmp_path, capsys):
    assert main(["completion", "fish"]) == 0
    script = tmp_path / "surefoot.fish"
    script.write_text(capsys.readouterr().out)
    return script


def test_fish_asks_bash_for_the_same_words(tmp_path, capsys):
    """Without fish: what stands in its quotes, run by bash as the script for fish runs it."""
    text = fish_script(tmp_path, capsys).read_text()
    quoted = re.search(r"set -g __surefoot_bash '((?:[^'\\]|\\.)*)'\n", text, re.S)[1]
    asked = re.sub(r"\\([\\'])", r"\1", quoted)
    for words, wanted in (
        ([""], {"run", "report", "completion"}),
        (["run", ""], {*study_names(), "all"}),
        (["run", "reparam", "--data", ""], {"mnist5k", "mnist", "fashion"}),
    ):
        done = subprocess.run(
            ["bash", "-s", "--", "surefoot", *words], input=asked, capture_output=True, text=True, check=True
        )  # fmt: skip
        assert wanted <= set(done.stdout.split()), words


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_commands_studies_and_values(tmp_path, capsys):
    script = fish_script(tmp_path, capsys)
    done = subprocess.run(
        ["fish", "--no-config", "-c", FISHED.format(script=script)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    top, run, data = done.stdout.split("NEXT\n")
    assert {"run", "report", "completion"} <= set(top.split())
    assert {*study_names(), "all"} <= set(run.split())
    assert set(data.split()) == {"mnist5k", "mnist", "fashion"}


def test_a_script_as_json(capsys):
    assert main(["completion", "zsh", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shell"] == "zsh"
    assert all(name in found["script"] for name in study_names())


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_an_interrupt_elsewhere_says_only_that():
    code = (
        "import os, signal, surefoot.cli as cli\n"
        "cli.List.__call__ = lambda self: os.kill(os.getpid(), signal.SIGINT) or 0\n"
        "raise SystemExit(cli.main(['list']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (130, "interrupted")
