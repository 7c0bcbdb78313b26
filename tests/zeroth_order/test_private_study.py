"""The private parts: epsilon off the record, equal tuning, a missing peer, bytes, and what stays inside."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import Record, Verdict
from surefoot._problems.arms import keep, of_arm
from surefoot._problems.tuning import EqualTuning
from surefoot._run.conclude import public
from surefoot.privacy import standard
from surefoot.zeroth_order.experiments import private, private_arms, private_descent
from surefoot.zeroth_order.experiments import private_federated as federated
from surefoot.zeroth_order.experiments import private_memory as memory
from surefoot.zeroth_order.experiments import private_sites as sites
from surefoot.zeroth_order.experiments.private_task import SPLITS, digits
from surefoot.zeroth_order.federated_guarantee import WIRE
from surefoot.zeroth_order.study import ZerothOrderConfig

CONFIG = ZerothOrderConfig()
NOISES = [
    (task, epsilon, sigma, setting.rate, steps)
    for settings in (private_arms.SETTINGS, federated.SETTINGS)
    for task, setting in settings.items()
    for noise, steps in (
        (setting.noise, setting.steps),
        (setting.first_order_noise, setting.first_order_steps),
    )
    for epsilon, sigma in noise.items()
]


@pytest.fixture(scope="module")
def short():
    """Part private on a few steps, its arms and grids as they are."""
    setting = dataclasses.replace(
        private_arms.SETTINGS["quick"], steps=6, first_order_steps=3, noise={1: 15.0},
        first_order_noise={1: 6.0},
    )  # fmt: skip
    return {**private_arms.SETTINGS, "quick": setting}


def ran(monkeypatch, short):
    monkeypatch.setattr(private, "SETTINGS", short)
    monkeypatch.setattr(private, "MEASURED", {"quick": ()})
    record = Record()
    for seed in (0, 1):
        private.run(CONFIG, seed, record)
    return record


def table_of(record, start):
    found = private.tables(CONFIG, record)
    return next(table for name, table in found.items() if name.startswith(start))


@pytest.mark.parametrize(("task", "epsilon", "sigma", "q", "steps"), NOISES)
def test_the_noise_of_the_settings_gives_the_epsilon_that_they_name(task, epsilon, sigma, q, steps):
    found = standard(sigma, q, steps).epsilon(1e-5).upper
    assert 0.97 * epsilon <= found <= epsilon, (task, found)


def test_epsilon_is_read_off_what_ran(monkeypatch, short):
    pytest.importorskip("opacus", reason="needs the privacy extra")
    record = ran(monkeypatch, short)
    table = table_of(record, "accuracy").set_index("arm")
    assert table.loc["DP-LOZO, epsilon 1", "epsilon"] == standard(15.0, 0.2, 6).epsilon(1e-5).value
    assert table.loc["DP-SGD, epsilon 1", "epsilon"] == standard(6.0, 0.2, 3).epsilon(1e-5).value
    assert np.isinf(table.loc[["LOZO", "SGD"], "epsilon"]).all()
    assert {len(set(record.fact("candidates", a).all)) for a in table.index} == {1}
    assert {record.fact("candidates", a).all for a in table.index} == {(4,)}
    found = {c.name: c for c in private.certificates(CONFIG, record)}
    said = found["DP-LOZO, epsilon 1: privacy of all that left"]
    assert said.verdict is Verdict.UNDECIDED
    assert "not audited" in said.reason
    assert all(a.holds for a in said.assumptions)
    hidden = found["DP-LOZO, epsilon 1: the last iterate leaks less"]
    assert hidden.verdict is Verdict.NOT_PROMISED
    opacus = found["DP-SGD, epsilon 1: privacy of all that left"]
    # What Opacus does with a NaN is not known, and nobody says that it is.
    assert [a.name for a in opacus.assumptions if a.holds is not True] == [
        "values that are not finite"
    ]
    figures = private.figures(CONFIG, record)
    for figure in figures.values():
        assert figure.layout.xaxis.title.text
        assert "(" in figure.layout.yaxis.title.text


def test_noise_that_is_seeded_is_told(monkeypatch):
    """A planted fault: the arm's noise is of a seed that somebody knows."""
    task, setting = digits(), dataclasses.replace(private_arms.SETTINGS["quick"], steps=2)
    made = private_arms.mechanism(task, setting, 15.0, {"clip": 4.0})
    seeded = dataclasses.replace(made, secret=torch.Generator().manual_seed(0))
    monkeypatch.setattr(private_arms, "mechanism", lambda *given: seeded)
    record = Record()
    keep(
        record,
        0,
        "arm",
        private_arms.lozo(task, setting, 0, {"clip": 4.0, "lr": 0.1}, sigma=15.0).record,
    )
    found = private_arms.promised(record, ["arm"])[0]
    assert found.verdict is Verdict.NOT_PROMISED
    assert "secret noise fails" in found.reason


def test_without_opacus_its_arm_is_skipped_and_said(monkeypatch, short):
    monkeypatch.setitem(sys.modules, "opacus", None)
    monkeypatch.delitem(sys.modules, "surefoot.zeroth_order.doors.opacus", raising=False)
    import surefoot.zeroth_order.doors as doors

    monkeypatch.delattr(doors, "opacus", raising=False)
    record = ran(monkeypatch, short)
    assert set(private.competed(record)) == {"DP-LOZO, epsilon 1", "LOZO", "SGD"}
    (why,) = private.tables(CONFIG, record)["skipped"]["why"]
    assert "opacus" in why
    assert "DP-SGD" in why


def test_the_validation_split_chooses_and_the_test_split_is_read_once():
    """Two candidates: one right on validation alone, one right on test alone."""
    x = {k: torch.eye(2, dtype=torch.float64) for k in ("train", "val", "test")}
    y = {"train": torch.tensor([0, 1]), "val": torch.tensor([0, 1]), "test": torch.tensor([1, 0])}
    task = dataclasses.replace(digits(), x=x, y=y)

    def train(given):
        model = nn.Linear(2, 2, bias=False, dtype=torch.float64)
        with torch.no_grad():
            model.weight.copy_(torch.eye(2) if given["lr"] == 1 else torch.eye(2).flip(0))
        return private_arms.Trained(model)

    record, looked = Record(), []
    accuracy = type(task).accuracy
    object.__setattr__(task, "accuracy", lambda m, s: looked.append(s) or accuracy(task, m, s))
    private_arms.compete(
        task, record, 0, EqualTuning("higher"), "arm", [{"lr": 2.0}, {"lr": 1.0}], train
    )
    assert record.fact("chosen", "arm").all == ("lr 1",)
    assert record.constant("arm, test accuracy")[0] == 0
    assert looked == ["val", "val", "test"]


def test_training_rows_are_in_no_other_split():
    task = digits()
    rows = {k: {tuple(r.tolist()) for r in v} for k, v in task.x.items()}
    assert [len(task.y[k]) for k in SPLITS["digits"]] == list(SPLITS["digits"].values())
    assert not rows["train"] & rows["val"]
    assert not rows["train"] & rows["test"]
    assert not rows["val"] & rows["test"]


# -- sites ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def composed():
    setting = dataclasses.replace(federated.SETTINGS["quick"], steps=5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federated, "SETTINGS", {**federated.SETTINGS, "quick": setting})
        patch.setattr(federated, "ROUNDS", {"quick": 2})
        patch.setattr(federated, "EQUAL_ROUNDS", {"quick": 3})
        record = Record()
        for seed in (0, 1):
            federated.run(CONFIG, seed, record)
    return record


def verdicts(record):
    return {c.name: str(c.verdict) for c in federated.certificates(CONFIG, record)}


def test_the_list_of_a_composed_run(composed):
    found = verdicts(composed)
    for arm in (federated.SERVER, federated.EACH):
        assert found[f"{arm}: privacy of all that left"] == "UNDECIDED"
        assert found[f"{arm}: the last iterate leaks less"] == "NOT_PROMISED"
        assert found[f"{arm}: scalars alone on the wire"] == "KEPT"
        assert found[f"{arm}: the log is the model"] == "KEPT"
    pooled = "the pooled step"
    assert found[f"{federated.EACH}: {pooled}"] == "NOT_PROMISED"
    assert found[f"{federated.PLAIN}: {pooled}"] == "KEPT"


def test_bytes_are_those_of_the_format(composed):
    # A header of 128 and 8 bytes a number: 4 messages and 4 replies, in the first round without scalars.
    rounds = federated.bytes_of(composed, federated.SERVER)
    assert rounds.shape == (2, 5)
    assert rounds[0].tolist() == [4 * (128 + 136), *[4 * (136 + 136)] * 4]
    averaged = federated.bytes_of(composed, federated.AVERAGED)
    assert averaged[0].tolist() == [2 * 4 * (2 * 128 + 8 * 650)] * 2
    assert federated.lora_bytes() == 2 * 4 * (24 * 128 + 4 * 73_728)
    rows = federated.tables(CONFIG, composed)["beside the bars"].set_index("what")
    assert rows["reached"].iloc[0]
    assert not rows["reached"].iloc[1]


def test_a_byte_more_breaks_the_wire(composed):
    record = Record.concat([composed])
    column = f"{federated.SERVER}: {WIRE}"
    record.update(0, 5, {column: record.curves(column).values[0, -1] + 1})
    assert verdicts(record)[f"{federated.SERVER}: scalars alone on the wire"] == "BROKEN"


def test_weights_that_are_not_of_the_log_break_the_replay(composed):
    record = Record.concat([composed])
    record.update(0, 5, {f"{federated.EACH}: weights apart from the replay": 1.0})
    assert verdicts(record)[f"{federated.EACH}: the log is the model"] == "BROKEN"


def test_averaging_of_sites_that_do_not_move_is_the_start():
    problem = sites.problem_of(digits(), 0)
    assert min(map(len, problem.parts)) > 0
    assert sorted(np.concatenate(problem.parts)) == list(range(digits().population))
    made = sites.averaged(problem, 2, 0, {"lr": 0.0})
    for got, start in zip(made.model.parameters(), problem.model().parameters(), strict=True):
        torch.testing.assert_close(got, start)


def test_factors_start_from_the_adapter():
    head = nn.functional.normalize(torch.randn(2, 12, generator=torch.Generator().manual_seed(0)))
    start, e = sites.Adapter(head), torch.randn(5, 12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(sites.Factored(start)(e), start(e))


# -- the descent ------------------------------------------------------------------------------------------


def test_the_descent_keeps_its_quantity_inside(monkeypatch):
    monkeypatch.setattr(private_descent, "STEPS", {"quick": 3})
    monkeypatch.setattr(private_descent, "ROWS", 20)
    record = Record()
    private_descent.run(CONFIG, 0, record)
    assert record.private_quantities == ("mean_weighed_gradient",)
    closed = private_descent.guarantees(CONFIG)[1]
    assert public(record, lambda: {"x": record.curves("c")}) != {}
    assert public(record, lambda: {"x": record.curves("mean_weighed_gradient")}) == {}
    assert closed.bound(record)[0, -1] == pytest.approx(private_descent.bound("quick").value)


def test_what_was_private_in_a_run_is_so_among_arms():
    run, record = Record(), Record()
    run.update(0, 0, {"loss": 1.0, "c": 2.0})
    run.private("loss")
    keep(record, 3, "arm", run)
    assert "arm: loss" in record.private_quantities
    assert of_arm(record, "arm").private_quantities == ("loss",)


# -- long -------------------------------------------------------------------------------------------------


@pytest.mark.acceptance
def test_the_descent_is_kept():
    from surefoot import certify

    record = Record()
    for seed in range(5):
        private_descent.run(CONFIG, seed, record)
    for guarantee in private_descent.guarantees(CONFIG):
        assert certify(record, guarantee).verdict is Verdict.KEPT


@pytest.mark.acceptance
def test_a_step_takes_an_eighth_of_the_memory_of_opacus(measured):
    pytest.importorskip("opacus", reason="needs the privacy extra")
    peaks = {a: memory.peak(a, "quick") for a in (memory.LOZO, memory.DP_LOZO, memory.DP_SGD)}
    ratio = peaks[memory.DP_LOZO] / peaks[memory.DP_SGD]
    measured("memory of a private step over Opacus' (perceptron)", "<= .125", f"{ratio:.3f}")
    assert ratio <= 1 / 8


def test_the_rate_that_is_noted_is_the_one_that_opacus_draws_with():
    pytest.importorskip("opacus", reason="needs the privacy extra")
    from surefoot.zeroth_order.doors.opacus import dp_sgd

    record, x = Record(), torch.randn(9, 4)
    dp_sgd(
        torch.nn.Linear(4, 2), x, torch.zeros(9, dtype=torch.int64), noise_multiplier=1.0, clip=1.0,
        lr=0.1, batches=4, steps=2, record=record, seed=0,
    )  # fmt: skip
    # Four batches of nine examples are three of three.
    assert record.fact("sample_rate").all == (1 / 3,)
