"""Runs side by side: the numbers against hand and scipy, refusals in one sentence, one page."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from surefoot import Verdict, run_study
from surefoot.cli import main
from surefoot.comparing import compare, write_comparison
from surefoot.errors import SurefootError, UnknownNameError
from surefoot.report import write_site
from surefoot.study import load_study

TOYS = Path(__file__).parents[1] / "toys"
WORDS = ["run", "toy_study", "--backend", "threading", "--part", "noisy"]


@pytest.fixture
def toys(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(TOYS))
    monkeypatch.setenv("PYTHONPATH", str(TOYS))
    monkeypatch.chdir(tmp_path)


def run(part=("noisy",), **config):
    study = load_study("toy_study")
    return run_study(study, study.config(part=part, **config), backend="threading", jobs=1)


def ends(folder, part="noisy"):
    return folder.record(part)["gap"][:, -1]


def test_differences_are_paired_and_have_students_interval(toys):
    a, b = run(lr=0.5, seeds=6), run(lr=0.3, seeds=6)
    found = compare([a, b.path], confidence=0.95)
    (row,) = found.measured
    pairs = ends(b) - ends(a)
    assert (row.part, row.quantity, row.seeds) == ("noisy", "gap", (0, 1, 2, 3, 4, 5))
    assert row.values == pytest.approx((ends(a).mean(), ends(b).mean()))
    (difference,) = row.differences
    assert difference.mean == pytest.approx(pairs.mean())
    plain = stats.t.interval(0.95, 5, pairs.mean(), stats.sem(pairs))
    # Lengthened where the pairs are skewed, and never shorter than Student's.
    assert difference.low <= plain[0] + 1e-15
    assert difference.high >= plain[1] - 1e-15
    assert difference.high - difference.low < 3 * (plain[1] - plain[0])
    assert found.settings == ({"lr": 0.5}, {"lr": 0.3})


def test_only_shared_seeds_count(toys):
    a, b = run(seed=0, seeds=5), run(seed=3, seeds=5, lr=0.4)
    (row,) = compare([a, b]).measured
    assert row.seeds == (3, 4)
    assert row.values[0] == pytest.approx(ends(a)[3:].mean())
    assert row.differences[0].mean == pytest.approx((ends(b)[:2] - ends(a)[3:]).mean())


def test_a_run_of_the_same_settings_differs_by_nothing(toys):
    (row,) = compare([run(), run()]).measured
    (difference,) = row.differences
    assert (difference.mean, difference.low, difference.high) == (0, 0, 0)
    assert not difference.told


def test_a_planted_difference_is_told_and_chance_is_not(toys):
    a = run(seeds=8, noise=0.1)
    assert compare([a, run(seeds=8, lr=0.02)]).measured[0].differences[0].told
    # Other noise of the same law: the seeds' numbers are the pairs, their values chance.
    other = compare([a, run(seed=0, seeds=8, noise=0.1001)]).measured[0].differences[0]
    assert abs(other.mean) < 1e-3


def test_one_seed_has_no_interval(toys):
    (row,) = compare([run(seeds=1), run(seeds=1, lr=0.4)]).measured
    assert math.isnan(row.differences[0].low)
    assert math.isfinite(row.differences[0].mean)


def test_claims_stand_beside_each_other(toys):
    a, b = run(part=("noisy", "planted")), run(part=("noisy",))
    found = compare([a, b])
    (claim,) = found.claimed
    assert [c.verdict for c in claim.certificates] == [Verdict.KEPT, Verdict.KEPT]
    three = compare([a, a_again := run(part=("noisy", "planted")), b])
    names = {c.name: c.certificates for c in three.claimed}
    planted = next(c for n, c in names.items() if n != "noisy descent")
    assert planted[2] is None
    assert planted[0].verdict is planted[1].verdict is Verdict.BROKEN
    assert a_again.path.name in three.names


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (lambda: [run()], r"runs must be at least two run folders, got 1"),
        (lambda: [run()] * 2, r"runs must be different run folders, got .* more than once"),
        (lambda: [run(seeds=2), run(seed=7, seeds=2)], r"share no seed: one ran seeds 0 to 1, the other"),
        (lambda: [run(), run(part=("planted",))], r"share no quantity: one recorded noisy: gap, the other"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_sentence(toys, folders, says):
    with pytest.raises(SurefootError, match=says):
        compare(folders())


def test_an_unknown_quantity_lists_those_there_are(toys):
    with pytest.raises(UnknownNameError, match="quantity of all runs.*gap"):
        compare([run(), run()], quantities=["loss"])


def test_a_diverged_run_is_not_averaged_away(toys):
    found = compare([run(seeds=3), run(seeds=3, lr=1e30)])
    assert not np.isfinite(found.measured[0].differences[0].mean)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert "not finite" in write_comparison(found).read_text()


def test_the_page_has_every_number_and_the_index_lists_it(toys, tmp_path):
    a, b = run(lr=0.5), run(lr=0.3)
    found = compare([a, b])
    page = write_comparison(found)
    text = page.read_text()
    difference = found.measured[0].differences[0]
    for number in (*found.measured[0].values, difference.mean, difference.low, difference.high):
        assert f"{number:.4g}" in text
    assert text.count(">KEPT</span>") == 2
    for link in re.findall(r'href="([^"#]+)"', text):
        assert link.startswith("data:") or (page.parent / link).exists(), link
    index = write_site(tmp_path / "runs").read_text()
    assert f"compare/{page.name}" in index
    assert len(text) < 30_000
    assert found._repr_html_().startswith("<article")
    assert repr(found).startswith("<Comparison of ")


def test_the_command(toys, capsys):
    a, b = run(lr=0.5), run(lr=0.3)
    assert main(["compare", str(a.path), str(b.path)]) == 0
    out = capsys.readouterr().out
    assert "lr = 0.3" in out
    assert Path(re.search(r"report: (\S+)", out)[1]).exists()
    assert main(["compare", str(a.path), str(b.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["quantities"][0]["quantity"] == "gap"
    assert main(["compare", str(a.path)]) == 2
    assert capsys.readouterr().err.startswith("error: RUNS must be at least two run folders")
    assert main(["compare", str(a.path), "nowhere"]) == 2


def test_against_pairs_the_seeds_of_the_baseline(toys, capsys):
    assert main([*WORDS, "--seed", "5", "--seeds", "4"]) == 0
    capsys.readouterr()
    assert main([*WORDS, "--lr", "0.3", "--against", "last", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["against"]["quantities"][0]["seeds"] == [5, 6, 7, 8]
    assert found["against"]["settings"] == [{"lr": 0.5}, {"lr": 0.3}]
    baseline = found["against"]["runs"][0]
    assert main([*WORDS, "--lr", "0.3", "--against", baseline]) == 0
    assert Path(re.search(r"compared: (\S+)", capsys.readouterr().out)[1]).exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--against", "last"], "holds no run of toy that ended"),
        (["--against", "nowhere"], "nowhere is not a folder"),
        (["--against", "{other}"], "must be a run of toy, and .* is one of nesterov"),
        (["--against", "{same}", "--seed", "90"], "shares no seed of any part"),
    ],
)
def test_against_what_cannot_be_is_refused_before_anything_runs(
    toys, tmp_path, capsys, words, says
):
    other = run()
    same = str(other.path.rename(tmp_path / "elsewhere"))
    (tmp_path / "other").mkdir()
    config = json.loads((tmp_path / "elsewhere" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"study": "nesterov"}))
    words = [w.format(other=tmp_path / "other", same=same) for w in words]
    before = sorted((tmp_path / "runs").rglob("config.json"))
    assert main([*WORDS, *words]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert sorted((tmp_path / "runs").rglob("config.json")) == before


def test_against_is_for_one_study(capsys):
    assert main(["run", "all", "--against", "last"]) == 2
    assert "--against is for one study, got 10" in capsys.readouterr().err
