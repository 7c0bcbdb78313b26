"""The parts of the study at sizes of milliseconds."""

import math

import pytest
import torch

from surefoot import Record
from surefoot.in_context.experiments import layers, loops, optimum, real, recovered
from surefoot.in_context.study import STUDY

CONFIG = STUDY.config()


def test_the_table_of_layers_has_the_published_trial_values():
    record = Record()
    layers.run(CONFIG, 0, record)
    (table,) = layers.tables(CONFIG, record).values()
    shown = table[(table.n == 20)].set_index("loops")
    assert shown.loc[1, "what tying costs"] == pytest.approx(1, rel=1e-12)
    assert shown.loc[5, "what tying costs"] == pytest.approx(2.65, abs=0.005)
    assert (table["what tying costs"] >= 1 - 1e-12).all()
    assert len(layers.figures(CONFIG, record)) == 2


def test_loops_at_test_time_stop_where_the_mean_is_least(monkeypatch):
    monkeypatch.setitem(loops.PROMPTS, "quick", 100)
    monkeypatch.setattr(loops, "ARMS", ((10, 20, 2),))
    record = Record()
    loops.run(CONFIG, 0, record)
    table, shifted = loops.tables(CONFIG, record).values()
    assert table["safe loops"].tolist() == ["5"]
    exact = loops.exact((10, 20, 2), 1.0)
    assert exact.index(min(exact)) == 4
    assert exact[0] == pytest.approx(3.553, abs=5e-4)
    # Twice the covariance is twice the step.
    assert shifted["converges up to x"][0] < 2
    assert shifted["least exact loss"][0] == pytest.approx(min(loops.exact((10, 20, 2), 2.0)))


def test_conditions_and_errors_of_real_rows_are_told(monkeypatch):
    monkeypatch.setitem(real.SIZES, "quick", (30, 3))
    monkeypatch.setattr(real, "LOOPS", (1, 2))
    record = Record()
    real.run(CONFIG, 0, record)
    found = real.tables(CONFIG, record)
    assert len(found) == 3
    digits = next(t for name, t in found.items() if name.startswith("digits"))
    errors = digits.set_index("predictor")["mean squared error"]
    assert errors["least squares"] < 1e-20
    assert list(digits["best"]).count("best") == 1
    conditions = found["what the theorems ask of prompts"]
    noise = conditions[conditions.condition == "y without noise"].set_index("table")["verdict"]
    assert noise.to_dict() == {"diabetes": "fails", "digits": "holds"}


def test_ridges_penalty_is_not_chosen_on_the_prompts_that_are_reported():
    source = real.prompts_of("diabetes", 0)
    one, two = source.sample(20), source.sample(20)
    assert not torch.equal(one.X, two.X)


def test_what_is_announced_is_judged(monkeypatch):
    monkeypatch.setitem(optimum.ARMS, "quick", ((3, 8, 2, "zero"), (3, 8, 2, optimum.WITH_U)))
    monkeypatch.setitem(optimum.STEPS, "quick", 10)
    monkeypatch.setitem(optimum.SCORED, "quick", 2000)
    record = Record()
    optimum.run(CONFIG, 0, record)
    names = {c.name for c in optimum.certificates(CONFIG, record)}
    assert all(any(arm in name for name in names) for arm in ("from zero", "u trained", "flow"))
    assert len([name for name in names if optimum.BIAS in name]) == 1
    table, flow = optimum.tables(CONFIG, record).values()
    assert (flow["time"] <= flow["promised, integrated"]).all()
    assert (table["loss / loss at b*, same prompts"] > 1).all()
    assert len(optimum.figures(CONFIG, record)) == 1


@pytest.mark.acceptance
def test_every_announced_verdict_is_one_of_the_study(monkeypatch):
    monkeypatch.setitem(loops.PROMPTS, "quick", 10)
    for part in (optimum, loops):
        record = Record()
        part.run(CONFIG, 0, record)
        names = {c.name for c in part.certificates(CONFIG, record)}
        assert set(part.EXPECTS) <= names


def test_every_kind_of_verdict_is_asked_for():
    assert len(set(recovered.TRUTH.values())) == len(recovered.TRUTH) == 7
    assert set(recovered.callables(0)) == set(recovered.TRUTH)


def test_the_table_of_the_probe_says_how_often_it_was_right(monkeypatch):
    monkeypatch.setattr(recovered, "TRUTH", {"three loops, hidden A": "gd"})
    monkeypatch.setitem(recovered.LOOPS, "quick", 3)
    monkeypatch.setattr(
        recovered, "callables", lambda seed: {"three loops, hidden A": recovered.hidden(seed)}
    )
    record = Record()
    recovered.run(CONFIG, 0, record)
    (table,) = recovered.tables(CONFIG, record).values()
    row = table.iloc[0]
    assert row["right in"] == "1 of 1"
    assert row["at steps"] == 3
    assert row["A off by"] < 1e-5
    assert not math.isnan(row["best other, error"])
