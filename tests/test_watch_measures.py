"""Measures of a watched training: values in closed form, what they cost, and what they let one promise."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import Record, Verdict, watch
from surefoot._run.folder import RunFolder
from surefoot._watching.schedule import Schedule
from surefoot.cli import main
from surefoot.errors import ArgumentError, SurefootError, UnknownNameError

ALL = ("smoothness", "noise", "aiming", "stationarity")
SCALE = torch.tensor([0.25, 1.0, 2.0], dtype=torch.float64)


class Bowl(nn.Module):
    """f = sum scale x^2 / 2, whose constants are known: L = 2, mu = 1/4, f* = 0 at 0."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self):
        return 0.5 * (SCALE * self.x**2).sum()


def trained(steps=30, lr=0.5, noise=0.0, optimizer=torch.optim.SGD, every=1, probes=ALL, **given):
    model = Bowl()
    given = {"objective": model, "f_star": 0.0, "overhead": math.inf} | given
    inner = optimizer(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    path = []
    with watch(model, inner, probes=probes, every=every, **given) as w:
        for _ in range(steps):
            inner.zero_grad()
            loss = model()
            loss.backward()
            model.x.grad += noise * torch.randn(3, dtype=torch.float64, generator=generator)
            w.log(loss=loss)
            path.append(model.x.detach().clone())
            inner.step()
    return w, torch.stack(path)


def test_values_are_those_of_the_closed_form():
    w, path = trained()
    f = 0.5 * (SCALE * path**2).sum(1)
    square = (SCALE * path).square().sum(1)
    np.testing.assert_allclose(w.record["objective"][0], f, rtol=1e-12)
    np.testing.assert_allclose(w.record["stationarity"][0], square, rtol=1e-12)
    np.testing.assert_allclose(w.record["smoothness"][0], 2.0, rtol=1e-9)
    np.testing.assert_allclose(w.record["noise"][0], 0.0, atol=1e-30)
    np.testing.assert_allclose(w.record["aiming"][0], square / (2 * f), rtol=1e-12)


def test_aiming_at_an_anchor():
    """<g, x - p> = f - f* + mu/2 |x - p|^2 with p = 0: 2 f = f + mu/2 |x|^2."""
    w, path = trained(anchor=torch.zeros(3, dtype=torch.float64))
    f = 0.5 * (SCALE * path**2).sum(1)
    np.testing.assert_allclose(w.record["aiming"][0], 2 * f / path.square().sum(1), rtol=1e-12)


def test_noise_is_that_of_the_gradient_the_step_takes():
    w, _ = trained(steps=400, noise=0.3)
    assert w.record["noise"].mean() == pytest.approx(3 * 0.09, rel=0.15)


def test_the_training_is_the_same_to_the_bit():
    """Gradients, parameters and random numbers are left alone, also under an objective with dropout."""

    def run(probes):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        x = torch.randn(16, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        objective = lambda: model(x).square().mean()  # noqa: E731 - as a user writes it
        given = {"objective": objective, "overhead": math.inf} if probes else {}
        with watch(model, optimizer, probes=probes, every=1, **given):
            for _ in range(5):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
        return torch.cat([p.detach().reshape(-1) for p in model.parameters()])

    assert torch.equal(run(()), run(("smoothness", "noise", "stationarity")))


def test_statistics_of_batches_are_those_of_the_training():
    """A measure is a forward in training mode, which would move them once more."""

    def run(probes):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        x = torch.randn(16, 4)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        objective = lambda: model(3 * x).square().mean()  # noqa: E731 - two lines of a loop
        given = {"objective": objective, "overhead": math.inf} if probes else {}
        with watch(model, optimizer, probes=probes, every=1, **given):
            for _ in range(3):
                optimizer.zero_grad()
                model(x).square().mean().backward()
                optimizer.step()
        return dict(model.named_buffers())

    plain, watched = run(()), run(("noise",))
    assert plain["1.num_batches_tracked"] == 3
    assert all(torch.equal(plain[k], watched[k]) for k in plain)


def test_inside_opacus_nothing_is_measured_that_its_hooks_would_take():
    opacus = pytest.importorskip("opacus", reason="needs the privacy extra")
    model = nn.Linear(4, 1)
    private = opacus.GradSampleModule(model)
    optimizer = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(private.parameters(), lr=0.1), noise_multiplier=1.0, max_grad_norm=1.0,
        expected_batch_size=4,
    )  # fmt: skip
    objective = lambda: private(torch.ones(4, 4)).square().mean()  # noqa: E731 - as a user writes it
    with pytest.raises(ArgumentError, match="cannot be measured inside Opacus"):
        watch(private, optimizer, probes=("noise",), objective=objective)
    watch(private, optimizer, probes=("gradient_norm",)).close()


def test_groups_with_rates_of_their_own_have_no_one_rate():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    groups = [
        {"params": m.parameters(), "lr": lr} for m, lr in zip(model, (0.1, 0.01), strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    objective = lambda: model(x).square().mean()  # noqa: E731 - as a user writes it
    given = {"objective": objective, "f_star": 0.0, "overhead": math.inf}
    with watch(model, optimizer, probes=ALL, every=1, **given) as w:
        for _ in range(4):
            optimizer.zero_grad()
            objective().backward()
            optimizer.step()
    assert not w.certificates()
    assert "rates of their own" in reasons(w)["sufficient decrease"]


# -- what it costs ----------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("share", "cost"), [(0.05, 10.0), (0.2, 1.0), (0.01, 0.1)])
def test_measures_stay_within_their_share(share, cost):
    clock = Clock()
    schedule = Schedule(share, clock)
    for _ in range(20_000):
        if schedule.due():
            with schedule.measuring():
                clock.now += cost
        clock.now += 1.0
    assert schedule.overhead <= share
    # And it is used: what is skipped is what would not fit.
    assert schedule.spent >= min(0.9 * share, cost) * 20_000
    assert schedule.taken + schedule.skipped == 20_000


def test_a_measure_that_grows_dearer_is_skipped_by_its_last_cost():
    clock = Clock()
    schedule = Schedule(0.05, clock)
    for n in range(5_000):
        if schedule.due():
            with schedule.measuring():
                clock.now += 1.0 if n < 100 else 20.0
        clock.now += 1.0
    assert schedule.overhead <= 0.05


def test_the_first_measure_is_always_taken():
    w, _ = trained(steps=3, overhead=0.0)
    assert w.record.curves("objective").steps.tolist() == [0]
    assert w.overhead > 0


def test_a_watch_measures_within_its_share_by_a_clock():
    clock, model = Clock(), Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def objective():
        clock.now += 5.0
        return model()

    with watch(model, optimizer, probes=ALL, every=2, objective=objective, overhead=0.1) as w:
        w._schedule.clock = clock
        for _ in range(1000):
            optimizer.zero_grad()
            model().backward()
            optimizer.step()
            clock.now += 1.0
        overhead = w.overhead
    assert 0.05 < overhead <= 0.1
    steps = w.record.curves("objective").steps
    assert (steps % 2 == 0).all()
    # 5 seconds each: one in 50 steps.
    assert len(steps) == pytest.approx(20, abs=2)


# -- what is offered --------------------------------------------------------------------------------------


def verdicts(w):
    return {c.name: c.verdict for c in w.certificates()}


def reasons(w):
    return {o.name: o.why_not for o in w.offered()}


def test_plain_gradient_descent_keeps_what_is_promised():
    w, _ = trained()
    assert verdicts(w) == {"sufficient decrease": Verdict.KEPT, "linear rate": Verdict.KEPT}
    said = reasons(w)
    assert said["sufficient decrease"] == said["linear rate"] == ""
    assert "its gradients are those of the objective" in said["sufficient decrease in the mean"]


def test_also_where_only_some_steps_were_looked_at():
    w, _ = trained(every=7)
    assert set(verdicts(w).values()) == {Verdict.KEPT}


def test_a_step_that_is_too_long_is_not_promised():
    w, _ = trained(lr=0.6)
    for c in w.certificates():
        assert c.verdict is Verdict.NOT_PROMISED
        assert "L-smooth along the path" in c.reason


@pytest.mark.parametrize("name", ["sufficient decrease", "linear rate"])
def test_a_planted_fault_is_found(name):
    """The optimizer goes on half as far as it says: less decrease than is owed."""
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.4)
    with watch(
        model, optimizer, probes=ALL, every=1, objective=model, f_star=0.0, overhead=math.inf
    ) as w:
        for _ in range(40):
            optimizer.zero_grad()
            model().backward()
            before = model.x.detach().clone()
            optimizer.step()
            with torch.no_grad():
                model.x.copy_(before + 0.1 * (model.x - before))
    assert verdicts(w)[name] is Verdict.BROKEN


def test_noisy_gradients_are_held_against_the_mean():
    w, _ = trained(steps=50, lr=0.1, noise=0.1)
    assert verdicts(w) == {"sufficient decrease in the mean": Verdict.UNDECIDED}
    assert "promises nothing of single noisy runs" in reasons(w)["sufficient decrease"]


def test_several_seeds_decide_a_mean():
    records = []
    for seed in range(12):
        model = Bowl()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        generator = torch.Generator().manual_seed(seed)
        with watch(
            model,
            optimizer,
            probes=ALL,
            every=1,
            objective=model,
            f_star=0.0,
            overhead=math.inf,
            seed=seed,
        ) as w:
            for _ in range(40):
                optimizer.zero_grad()
                model().backward()
                model.x.grad += 0.1 * torch.randn(3, dtype=torch.float64, generator=generator)
                optimizer.step()
        records.append(w.record)
    w.record = Record.concat(records)
    (found,) = w.certificates()
    assert found.verdict is Verdict.KEPT
    # Nobody can bound the variance of what was not measured, and the certificate says so.
    unknown = [a.name for a in found.assumptions if a.holds is None]
    assert unknown == ["L-smooth along the path", "bounded variance of the gradient"]


@pytest.mark.parametrize(
    ("given", "name", "why"),
    [
        ({"optimizer": torch.optim.Adam}, "sufficient decrease", "plain gradient descent"),
        (
            {"optimizer": lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9)},
            "linear rate", "no momentum fails",
        ),
        ({"f_star": None}, "linear rate", "pass f_star="),
        ({"probes": ("stationarity",)}, "sufficient decrease", "not measured: smoothness, noise"),
        ({"overhead": 0.0}, "sufficient decrease", "measured at one step only"),
        ({"noise": 0.1, "f_star": None}, "sufficient decrease in the mean", "pass f_star="),
    ],
)  # fmt: skip
def test_what_is_not_offered_says_why(given, name, why):
    w, _ = trained(**given)
    assert why in reasons(w)[name]
    assert name not in verdicts(w)


def test_a_watch_without_measures_says_what_to_name():
    model = Bowl()
    with watch(model, torch.optim.SGD(model.parameters(), lr=0.1)) as w:
        w.log(loss=1.0)
    assert w.certificates() == []
    assert all("name them as probes" in str(o) for o in w.offered()[:1])


def test_bad_arguments():
    model = Bowl()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match="objective must be the loss over all data"):
        watch(model, optimizer, probes=("smoothness",))
    with pytest.raises(ValueError, match="overhead must be"):
        watch(model, optimizer, probes=("smoothness",), objective=model, overhead=-1)
    for unused in ({"f_star": 0.0}, {"objective": model}, {"anchor": torch.zeros(2)}):
        with pytest.raises(ArgumentError, match="has no use without one of the probes"):
            watch(model, optimizer, probes=("lr",), **unused)
    with pytest.raises(ArgumentError, match="f_star must be a finite number"):
        watch(model, optimizer, probes=("aiming",), objective=model, f_star=-math.inf)
    with pytest.raises(UnknownNameError, match="there are: aiming, gradient_norm"):
        watch(model, optimizer, probes=("sharpness",))


# -- its page ---------------------------------------------------------------------------------------------


def test_a_page_among_those_of_the_studies(tmp_path, capsys):
    w, _ = trained()
    page = w.write_page(tmp_path / "runs")
    assert page.exists()
    assert "A watched training" in page.read_text(encoding="utf-8")
    assert "watch" in (tmp_path / "runs" / "index.html").read_text(encoding="utf-8")
    folder = RunFolder.open(page.parent)
    assert folder.changes == []
    assert {c.name: c.verdict for c in folder.certificates()} == verdicts(w)
    np.testing.assert_array_equal(folder.record("training")["loss"], w.record["loss"])
    assert main(["report", str(page.parent), "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert {c["name"] for c in said["certificates"]} == set(verdicts(w))
    assert main(["report", str(tmp_path / "runs")]) == 0


def test_nothing_recorded_has_no_page(tmp_path):
    model = Bowl()
    w = watch(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(SurefootError, match="nothing was recorded yet"):
        w.write_page(tmp_path)
    assert not list(tmp_path.iterdir())
