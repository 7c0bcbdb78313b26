"""Seeds are added until a claim on a mean is decided, and the certificate knows that they were."""

import json

import numpy as np
import pytest

from surefoot import Guarantee, Part, Study, StudyConfig, run_study
from surefoot._run.plan import Execution, reproduce
from surefoot.cli import main
from surefoot.guarantee import Verdict


def study(mean, spread=0.3, **changes):
    def run(config, seed, record):
        rng = np.random.default_rng(seed)
        for step in range(4):
            record.append(seed, step, gap=max(0.0, mean + spread * rng.standard_normal()))

    def promises(config):
        fields = {
            "name": "a mean", "statement": "E gap <= 1", "source": "none", "quantity": "gap",
            "sense": "upper", "holds_in": "expectation", "bound": lambda record: 1.0,
        }  # fmt: skip
        return [Guarantee(**(fields | changes))]

    parts = (
        Part("random", "A mean", run, promises, seeds={"quick": 5}),
        Part("other", "Decided at once", run, lambda config: (), seeds={"quick": 5}),
    )
    return Study("mean", "A mean near its bound", "none", StudyConfig, parts)


def grown(made, **how):
    found = run_study(made, backend="threading", until_decided=True, **how)
    return found, found.certificates()[0], found.parts


@pytest.mark.parametrize(("mean", "verdict"), [(0.85, Verdict.KEPT), (1.3, Verdict.BROKEN)])
def test_seeds_double_until_it_is_decided(mean, verdict, tmp_path):
    folder, found, parts = grown(study(mean), out=tmp_path)
    assert found.verdict is verdict
    total = len(parts["random"]["seeds"])
    looks = parts["random"]["look"]
    assert total == 5 * 2 ** (looks - 1) > 5
    assert found.seeds == list(range(total))
    # A part that nothing is open about is left alone.
    assert len(parts["other"]["seeds"]) == 5
    assert folder.status["state"] == "finished"
    if verdict is Verdict.KEPT:
        assert any(f"look {looks} at a growing number" in note for note in found.notes)


def test_a_known_range_needs_no_share_of_the_looks(tmp_path):
    _, found, _ = grown(study(0.5, value_range=(0.0, 3.0)), out=tmp_path)
    assert found.verdict is Verdict.KEPT
    assert "valid at whatever number of seeds one stops" in found.notes


def test_the_most_seeds_are_kept_to(tmp_path):
    _, found, parts = grown(study(0.999), out=tmp_path, max_seeds=12)
    assert found.verdict is Verdict.UNDECIDED
    assert len(parts["random"]["seeds"]) == 12


def test_what_no_seeds_decide_is_left_as_it_is(tmp_path):
    _, found, parts = grown(study(0.5, spread=0.0), out=tmp_path)
    assert found.verdict is Verdict.UNDECIDED
    assert "seeds change nothing" in found.reason
    assert len(parts["random"]["seeds"]) == 5


def test_the_command_goes_on_by_itself_and_says_how_to_repeat_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("surefoot.study.load_study", lambda name: study(1.3))
    words = ["run", "mean", "--backend", "threading", "--until-decided", "--max-seeds", "100"]
    assert main([*words, "--json"]) == 1
    (told,) = json.loads(capsys.readouterr().out)
    assert told["certificates"][0]["verdict"] == "BROKEN"
    config = json.loads((tmp_path / told["folder"] / "config.json").read_text())
    assert config["command"] == "surefoot run mean --until-decided --max-seeds 100"
    assert reproduce(study(1.0), StudyConfig(), Execution()) == "surefoot run mean"


def test_a_maximum_that_is_none_is_refused():
    with pytest.raises(ValueError, match="max_seeds must be"):
        Execution(max_seeds=0)
