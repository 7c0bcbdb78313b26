"""What a ledger says to do next, on a quadratic where each way out is known."""

import warnings
from math import log, sqrt

import numpy as np
import pytest
import torch

from surefoot.guarantee import Verdict
from surefoot.nesterov import NAG, Ledger
from surefoot.nesterov._ledger.advice import steps_needed
from surefoot.nesterov._ledger.landscape import Circumstances
from surefoot.nesterov._ledger.measured import MeasuredLedger, ledger_certificates
from surefoot.nesterov.ledger import SmoothnessWarning
from surefoot.record import Record

MU, L = 0.01, 1.0
SCALE = torch.tensor([MU, L], dtype=torch.float64)


def closed(steps, *, mu=MU, eta=1 / L, noise=0.0, **ledger):
    """The certificate of a run on f = (mu x^2 + L y^2) / 2, and what it warned of."""
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    s = sqrt(mu * eta)
    optimizer = NAG([x], lr=eta, momentum=(1 - s) / (1 + s))
    generator = torch.Generator().manual_seed(0)
    told = Ledger(optimizer, lambda: 0.5 * (SCALE * x**2).sum(), mu=mu, eta=eta, **ledger)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SmoothnessWarning)
        for _ in range(steps):
            optimizer.zero_grad()
            (0.5 * (SCALE * x**2).sum()).backward()
            x.grad += noise * torch.randn(2, dtype=torch.float64, generator=generator)
            told.observe()
            optimizer.step()
        found = told.close()
    return found, [str(w.message) for w in caught]


ORIGIN = torch.zeros(2, dtype=torch.float64)


def test_kept_needs_no_advice():
    found, _ = closed(200, anchor=ORIGIN)
    assert found.verdict is Verdict.KEPT
    assert "; " not in found.reason


def test_an_infimum_that_is_not_known():
    found, _ = closed(50, f_star=None)
    assert found.verdict is Verdict.UNDECIDED
    assert found.reason.endswith("; pass f_star=, the infimum of f")
    assert closed(200, f_star=0.0, anchor=ORIGIN)[0].verdict is Verdict.KEPT


def test_a_run_that_ends_before_its_minimiser():
    found, _ = closed(20)
    assert found.verdict is Verdict.UNDECIDED
    assert "train longer, so that the run ends at a minimiser, or pass anchor=" in found.reason
    # Either does.
    assert closed(200, anchor=ORIGIN)[0].verdict is Verdict.KEPT
    assert closed(400)[0].verdict is Verdict.KEPT


def test_an_f_star_that_is_too_large():
    found, _ = closed(100, f_star=0.1)
    assert found.verdict is Verdict.UNDECIDED
    value = float(found.reason.rpartition("at most ")[2])
    assert value < 1e-2
    assert closed(100, f_star=0.0, anchor=ORIGIN)[0].verdict is Verdict.KEPT


def test_a_run_that_is_too_short_says_how_long():
    found, _ = closed(5, anchor=ORIGIN)
    assert found.verdict is Verdict.VACUOUS
    steps = int(found.reason.rpartition("at least ")[2].split()[0])
    assert steps == steps_needed(sqrt(MU / L))
    assert closed(steps, anchor=ORIGIN)[0].verdict is Verdict.KEPT
    assert closed(steps - 1, anchor=ORIGIN)[0].verdict is Verdict.VACUOUS


@pytest.mark.parametrize("s", [1e-3, 0.1, 0.9])
def test_steps_needed_is_the_closed_form(s):
    n = steps_needed(s) - 1
    assert n * log(1 - s) <= log(0.1) < (n - 1) * log(1 - s)


def test_a_step_that_is_too_long_says_which_is_not():
    found, told = closed(30, eta=2.5 / L, anchor=ORIGIN)
    assert found.verdict is Verdict.NOT_PROMISED
    eta = float(found.reason.rpartition("use eta <= ")[2])
    assert eta == pytest.approx(1 / L, rel=0.01)
    (warning,) = told
    assert "eta * L_needed" in warning
    assert "minibatches" not in warning


def test_gradients_of_minibatches_are_named_before_the_step_size():
    """The step size is that of the theorem: a shorter one would not help."""
    found, told = closed(60, noise=1.0, anchor=ORIGIN)
    assert found.verdict is Verdict.NOT_PROMISED
    assert "were not those of the closure (minibatches?): take full gradients" in found.reason
    assert "use eta" not in found.reason
    (warning,) = told
    assert "(minibatches?)" in warning
    assert "use eta" not in warning
    assert found.landscape in ("not-benign(smoothness)", "not-benign(curvature)")


def test_a_replay_that_ends_elsewhere():
    found, _ = closed(300, noise=0.3)
    assert found.verdict is Verdict.UNDECIDED
    assert found.reason.endswith(
        "take full gradients, or pass anchor= a minimiser, which needs no replay"
    )


def test_the_advice_is_the_same_from_the_record():
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    s = sqrt(MU)
    optimizer = NAG([x], lr=1.0, momentum=(1 - s) / (1 + s))
    told = Ledger(optimizer, lambda: 0.5 * (SCALE * x**2).sum(), mu=MU, eta=1.0, f_star=None)
    for _ in range(10):
        optimizer.zero_grad()
        (0.5 * (SCALE * x**2).sum()).backward()
        told.observe()
        optimizer.step()
    reason = told.close().reason
    assert ledger_certificates(told.record)[0].reason == reason


def test_whose_gradients_they_were_is_a_fact_of_the_record():
    found, _ = closed(60, noise=1.0, anchor=ORIGIN)
    record = Record()
    about = Circumstances(0.1, 0.0, 1.0, 0.0, foreign=True)
    steps = np.arange(len(found.terms["L"]))
    MeasuredLedger(steps, found.terms, about).write(record)
    assert MeasuredLedger.read(record).about.foreign
    assert record.fact("gradients").all == ("not those of the closure",)
