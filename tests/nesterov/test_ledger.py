"""The ledger: its identity, its verdicts, its cost, and the faults it must find."""

import copy
import json
import warnings
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from surefoot.certificate import Certificate
from surefoot.guarantee import Verdict
from surefoot.nesterov.experiments import digits_mlp, three_or_eight
from surefoot.nesterov.experiments.benign import arms
from surefoot.nesterov.experiments.ledgers import restore, run_nag, store
from surefoot.nesterov.ledger import Ledger, SmoothnessWarning
from surefoot.nesterov.optimizer import AGNES, NAG
from surefoot.nesterov.parameters import agnes_parameters
from surefoot.nesterov.probe import Landscape
from surefoot.record import Record


def identity_defect(terms, s, f_final=None):
    """|L_{n+1} - (1-s) L_n - terms| / (1 + L_n) at every step that has a successor."""
    lhs = terms["L"][1:] - (1 - s) * terms["L"][:-1]
    rhs = (1 - s) * terms["C"] + s * terms["A"] + terms["D"] + terms["K"] + terms["T"]
    return np.abs(lhs - rhs[:-1]) / (1 + terms["L"][:-1])


def wild(x):
    """Non-convex, with nothing in common with any hypothesis."""
    return (torch.sin(3 * x).sum() + 0.1 * (x**2).sum() + torch.cos(x[0] * x[1])) + 9.0


@given(seed=st.integers(0, 10_000), mu=st.floats(1e-3, 0.5), eta=st.floats(0.01, 1.0))
@settings(max_examples=20, deadline=None)
def test_identity_on_any_function_with_any_anchors(seed, mu, eta):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, dtype=torch.float64, generator=generator, requires_grad=True)

    def anchor(y):
        return torch.randn(5, dtype=torch.float64, generator=generator)

    ran = run_nag([x], lambda: wild(x), mu=mu, eta=eta, steps=15, anchor=anchor)
    defect = identity_defect(ran.measured.terms, sqrt(mu * eta))
    assert len(defect) >= 1
    assert defect.max() <= 1e-12


@pytest.mark.parametrize("name", list(arms()))
def test_identity_on_landscapes(name):
    landscape, eta = arms()[name]
    x = landscape.start.clone().requires_grad_()
    ran = run_nag(
        [x], lambda: landscape.f(x), mu=landscape.mu, eta=eta, steps=100, anchor=landscape.closest
    )
    assert identity_defect(ran.measured.terms, sqrt(landscape.mu * eta)).max() <= 1e-12


def test_identity_for_agnes_on_the_digits_network():
    model, f = digits_mlp.network()
    params = agnes_parameters(1e-3, 5.0, sigma_mult=sqrt(2))
    optimizer = AGNES(
        model.parameters(), lr=params.alpha, correction=params.eta, momentum=params.rho
    )
    ledger = Ledger(optimizer, f, mu=1e-3, eta=params.eta, params=params)
    for _ in range(60):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
    found = ledger.measure()
    assert len(found.terms["L"]) == 60
    assert identity_defect(found.terms, params.s).max() <= 1e-12


def test_s1_verdicts():
    verdicts = {}
    for name, (landscape, eta) in arms().items():
        x = landscape.start.clone().requires_grad_()
        ran = run_nag(
            [x], lambda x=x, f=landscape.f: f(x), mu=landscape.mu, eta=eta, steps=400,
            anchor=landscape.closest,
        )  # fmt: skip
        verdicts[name] = ran.measured.certificate()
    a = verdicts["oscillating parabola, eta = 1/L"]
    assert a.landscape == "benign-by-ledger"
    assert (a.failures["curvature"], a.judged) == (18, 119)
    assert verdicts["oscillating parabola, eta = mu/eps^2"].landscape == "benign"
    for c in verdicts.values():
        assert c.verdict is Verdict.KEPT
        assert c.tightness <= 1 + 1e-9
        assert (c.measured[: c.judged] <= c.posterior_bound[: c.judged] * (1 + 1e-9)).all()


@pytest.fixture(scope="module")
def three_or_eight_record():
    record = Record()
    three_or_eight.run(None, 0, record)
    return record


@pytest.mark.acceptance
def test_s6_promise_kept_and_falsifiable(three_or_eight_record):
    good = restore(three_or_eight_record, "digits 3 vs 8, mu = 6e-4")
    assert good.landscape == "benign-by-ledger"
    assert good.verdict is Verdict.KEPT
    assert good.failures["total"] == 0
    assert good.tightness <= 0.93
    bad = restore(three_or_eight_record, "digits 3 vs 8, mu = 1.2e-3")
    assert bad.landscape == "not-benign(aiming)"
    assert bad.verdict is Verdict.NOT_PROMISED
    table = three_or_eight.tables(None, three_or_eight_record)["steps to 1e-4 of the start"]
    row = table.iloc[0]
    assert row["measured steps"] < row["promised steps"] < row["gradient descent"]


def test_s4_names_the_cause_and_warns_before_the_loss_passes_its_start():
    for name in ("digits MLP, mu = 1e-3, L halved", "digits MLP, mu = 1e-4, L halved"):
        arm = digits_mlp.ARMS[name]
        model, f = digits_mlp.network()
        optimizer_steps = []
        s = sqrt(arm.mu / arm.L)
        optimizer = NAG(model.parameters(), lr=1 / arm.L, momentum=(1 - s) / (1 + s))
        ledger = Ledger(optimizer, f, mu=arm.mu, eta=1 / arm.L)
        first = warned = None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", SmoothnessWarning)
            for n in range(arm.steps):
                optimizer.zero_grad()
                loss = f()
                optimizer_steps.append(float(loss.detach()))
                if first is None and optimizer_steps[-1] > optimizer_steps[0]:
                    first = n
                if optimizer_steps[-1] > 100 * optimizer_steps[0]:
                    break
                loss.backward()
                ledger.record()
                if warned is None and caught:
                    warned = n
                optimizer.step()
            certificate = ledger.close()
        assert certificate.landscape == "not-benign(smoothness)"
        assert certificate.verdict is Verdict.NOT_PROMISED
        assert first is not None
        assert warned is not None
        assert warned < first
        assert len(caught) == 1
        assert "eta * L_needed" in str(caught[0].message)


@pytest.mark.acceptance
def test_s4_aiming_fails_on_the_tail():
    record = Record()
    digits_mlp.run(None, 0, record)
    found = restore(record, "digits MLP, mu = 1e-3")
    assert found.landscape == "not-benign(aiming)"
    assert found.verdict is Verdict.NOT_PROMISED


def valley(steps=200, mutate=None, f_star=0.0, **changes):
    """A quadratic whose constants are known: mu = 0.01, L = 1, f* = 0 at the origin."""
    scale = torch.tensor([0.01, 1.0], dtype=torch.float64)
    x = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)

    def f():
        return 0.5 * (scale * x**2).sum()

    rho = (1 - 0.1) / (1 + 0.1)
    optimizer = (mutate or NAG)([x], lr=1.0, momentum=rho)
    arguments = {"mu": 0.01, "eta": 1.0, "anchor": torch.zeros(2, dtype=torch.float64)} | changes
    ledger = Ledger(optimizer, f, f_star=f_star, **arguments)
    for _ in range(steps):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
    return ledger


def test_benign_on_a_quadratic():
    certificate = valley().close()
    assert certificate.landscape == "benign"
    assert certificate.verdict is Verdict.KEPT
    assert certificate.first_benign_step == 0
    assert valley().certify_mu() <= 0.01


def test_core_and_ledger_say_the_same():
    certificate = valley().close()
    assert isinstance(certificate, Certificate)
    text = certificate.summary()
    assert "landscape benign" in text
    assert "KEPT" in text
    again = Certificate.from_json(json.dumps(certificate.to_dict()))
    assert again.verdict is Verdict.KEPT
    assert again.details["landscape"] == "benign"


class WrongStep(NAG):
    """A planted fault: the update adds half of the gradient again in the wrong direction."""

    def step(self, closure=None):
        result = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(p.grad, alpha=1.5 * group["lr"])
        return result


class WrongMomentum(NAG):
    """A planted fault: the velocity is flipped after each step, as with a wrong sign of rho."""

    def step(self, closure=None):
        result = super().step(closure)
        with torch.no_grad():
            for state in self.state.values():
                for value in state.values():
                    if isinstance(value, torch.Tensor) and value.numel() > 1:
                        value.mul_(-1.3)
        return result


@pytest.mark.parametrize("fault", [WrongStep, WrongMomentum])
def test_planted_faults_in_the_update_are_broken(fault):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmoothnessWarning)
        certificate = valley(steps=60, mutate=fault).close()
    assert certificate.verdict is Verdict.BROKEN
    assert "no landscape can cause" in certificate.reason


def test_vacuous_when_the_run_is_short():
    certificate = valley(steps=10).close()
    assert certificate.landscape == "vacuous"
    assert certificate.verdict is Verdict.VACUOUS


def test_unknown():
    def closed(**changes):
        model, f = digits_mlp.network()
        ran = run_nag(model.parameters(), f, mu=1e-3, eta=0.2, steps=30, **changes)
        return ran.measured.certificate()

    assert closed().landscape.startswith("unknown: the anchor is no minimiser")
    assert closed().verdict is Verdict.UNDECIDED
    unknown = valley(f_star=None, anchor="final").close()
    assert unknown.landscape == "unknown: f* is not known"
    wrong = three_or_eight.network()
    g = three_or_eight.objective(wrong)
    ran = run_nag(
        wrong, g, mu=6e-4, eta=1 / three_or_eight.L, steps=300, f_star=0.1 * float(g().detach())
    )
    assert ran.measured.certificate().landscape.startswith("unknown")


def test_start_on_a_minimiser():
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    ran = run_nag(
        [x], lambda: 0.5 * (x**2).sum(), mu=0.5, eta=1.0, steps=5, anchor=torch.zeros_like(x)
    )
    certificate = ran.measured.certificate()
    assert certificate.landscape == "unknown: nothing to certify, the start is a minimiser"
    assert certificate.verdict is Verdict.UNDECIDED


@pytest.mark.filterwarnings("ignore::surefoot.nesterov.SmoothnessWarning")
def test_minibatch_gradients_are_noticed():
    model, f = digits_mlp.network()
    optimizer = NAG(model.parameters(), lr=0.2, momentum=0.97)
    s = (1 - 0.97) / (1 + 0.97)
    ledger = Ledger(optimizer, f, mu=s * s / 0.2, eta=0.2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        optimizer.zero_grad()
        f().backward()
        for p in model.parameters():
            p.grad += 0.1 * torch.randn(p.shape, dtype=p.dtype, generator=generator)
        ledger.record()
        optimizer.step()
    assert "the replay did not end where the run did" in ledger.close().landscape


def test_record_and_close_leave_everything_bit_exact():
    model, f = digits_mlp.network()
    s = sqrt(1e-3 * 0.2)
    optimizer = NAG(model.parameters(), lr=0.2, momentum=(1 - s) / (1 + s))
    twin = copy.deepcopy(model)
    other = NAG(twin.parameters(), lr=0.2, momentum=(1 - s) / (1 + s))
    ledger = Ledger(optimizer, f, mu=1e-3, eta=0.2)
    images = torch.tensor(digits_mlp.load_digits().data[:64] / 16)
    targets = nn.functional.one_hot(torch.tensor(digits_mlp.load_digits().target[:64]), 10)
    for n in range(20):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
        other.zero_grad()
        nn.functional.mse_loss(twin(images), targets.double()).backward()
        other.step()
        if n == 10:
            ledger.close()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.grad, b.grad)


def test_cost_of_recording():
    """At most two forwards a recorded step; close adds a forward-backward and a forward a step."""
    model, f = digits_mlp.network()
    calls = {"grad": 0, "plain": 0}

    def counted():
        calls["grad" if torch.is_grad_enabled() else "plain"] += 1
        return f()

    s = sqrt(1e-3 * 0.2)
    optimizer = NAG(model.parameters(), lr=0.2, momentum=(1 - s) / (1 + s))
    ledger = Ledger(optimizer, counted, mu=1e-3, eta=0.2)
    steps = 40
    for _ in range(steps):
        optimizer.zero_grad()
        f().backward()
        ledger.record()
        optimizer.step()
    assert calls["plain"] <= 2 * steps
    assert calls["grad"] == 0
    calls["plain"] = 0
    ledger.close()
    assert calls["grad"] == steps
    assert calls["plain"] <= steps + 2


def test_torch_sgd_is_accepted():
    scale = torch.tensor([0.01, 1.0], dtype=torch.float64)
    certificates = []
    for make in (NAG, lambda p, **k: torch.optim.SGD(p, nesterov=True, **k)):
        x = torch.ones(2, dtype=torch.float64, requires_grad=True)
        optimizer = make([x], lr=1.0, momentum=0.9 / 1.1)
        ledger = Ledger(
            optimizer, lambda x=x: 0.5 * (scale * x**2).sum(), mu=0.01, eta=1.0,
            anchor=torch.zeros(2, dtype=torch.float64),
        )  # fmt: skip
        for _ in range(100):
            optimizer.zero_grad()
            (0.5 * (scale * x**2).sum()).backward()
            ledger.record()
            optimizer.step()
        certificates.append(ledger.close())
    np.testing.assert_allclose(certificates[0].measured, certificates[1].measured, rtol=1e-9)
    assert certificates[1].verdict is Verdict.KEPT


def test_projected_anchor_agrees_with_the_closed_form():
    """f = (|x| - 1)^2 / 2 as a residual problem: the closest minimiser is x / |x|."""

    class Radius(nn.Module):
        def __init__(self):
            super().__init__()
            self.x = nn.Parameter(torch.tensor([1.5, 0.8], dtype=torch.float64))

        def forward(self, _):
            return self.x.norm().reshape(1, 1)

    def half_square(output, target):
        return 0.5 * ((output - target) ** 2).mean()

    model = Radius()
    one = torch.ones(1, 1, dtype=torch.float64)
    landscape = Landscape(model, half_square, (one, one))

    def f():
        return half_square(model(one), one)

    def run(**anchoring):
        with torch.no_grad():
            model.x.copy_(torch.tensor([1.5, 0.8]))
        optimizer = NAG(model.parameters(), lr=0.5, momentum=(1 - 0.5) / (1 + 0.5))
        ledger = Ledger(optimizer, f, mu=0.5, eta=0.5, **anchoring)
        for _ in range(12):
            optimizer.zero_grad()
            f().backward()
            ledger.record()
            optimizer.step()
        return ledger.close()

    projected = run(anchor="project", landscape=landscape)
    closed = run(anchor=lambda y: y / y.norm())
    for term in ("A", "C", "D", "K", "T"):
        np.testing.assert_allclose(
            projected.terms[term], closed.terms[term], atol=1e-9, err_msg=term
        )


def test_study_record_round_trip(three_or_eight_record, tmp_path):
    path = tmp_path / "record.parquet"
    three_or_eight_record.write(path)
    again = Record.read(path)
    for arm in three_or_eight.ARMS:
        a, b = restore(three_or_eight_record, arm), restore(again, arm)
        assert a.to_json() == b.to_json()
    record = Record()
    x = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    ran = run_nag([x], lambda: (x**2).sum(), mu=0.5, eta=0.5, steps=3)
    store(record, 0, "arm", ran.measured)
    assert restore(record, "arm").landscape == ran.measured.certificate().landscape


def quadratic_optimizer(dtype=torch.float64, **changes):
    x = torch.ones(2, dtype=dtype, requires_grad=True)
    settings_ = {"lr": 1.0, "momentum": 0.9 / 1.1} | changes
    return x, NAG([x], **settings_), lambda: 0.5 * (x**2).sum()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"mu": 0.0}, "mu must be positive and finite, got 0.0"),
        ({"eta": -1.0}, "eta must be positive and finite, got -1.0"),
        ({"mu": 2.0}, r"mu \* eta must be <= 1"),
        ({"every": 0}, "every must be a whole number of at least 1, got 0"),
        ({"anchor": "nearest"}, "anchor must be .*'final', 'project'"),
        ({"anchor": "project"}, "needs landscape="),
        ({"mu": 0.02}, "rho belongs to mu = 0.01"),
        ({"anchor": torch.ones(2, dtype=torch.float64)}, "anchor is not a minimiser"),
        ({"anchor": torch.zeros(3, dtype=torch.float64)}, r"anchor must have shape \(2,\)"),
    ],
)
def test_bad_arguments(arguments, says):
    _, optimizer, f = quadratic_optimizer()
    with pytest.raises(ValueError, match=says):
        Ledger(optimizer, f, **({"mu": 0.01, "eta": 1.0} | arguments))


def test_bad_optimizers_and_gradients():
    _, optimizer, f = quadratic_optimizer(dtype=torch.float32)
    with pytest.raises(ValueError, match="needs float64"):
        Ledger(optimizer, f, mu=0.01, eta=1.0)
    _, optimizer, f = quadratic_optimizer(weight_decay=0.1)
    with pytest.raises(ValueError, match="weight_decay must be 0"):
        Ledger(optimizer, f, mu=0.01, eta=1.0)
    x, optimizer, f = quadratic_optimizer()
    with pytest.raises(
        TypeError, match="NAG, AGNES or torch.optim.SGD with nesterov=True, got Adam"
    ):
        Ledger(torch.optim.Adam([x]), f, mu=0.01, eta=1.0)
    ledger = Ledger(optimizer, f, mu=0.01, eta=1.0)
    with pytest.raises(RuntimeError, match=r"close\(\) without a recorded step"):
        ledger.close()
    x.grad = torch.tensor([1.0, float("nan")], dtype=torch.float64)
    with pytest.raises(RuntimeError, match="gradient of parameter 0 is not finite at step 0"):
        ledger.record()
