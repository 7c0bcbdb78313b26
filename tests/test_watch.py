"""Watching somebody else's training loop."""

import copy
import itertools
import math
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import Guarantee, Verdict, watch
from surefoot.errors import NonFiniteError, UnknownNameError
from surefoot.record import Record


def loop(steps, lr=0.1, **watching):
    torch.manual_seed(0)
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    x = torch.eye(3, dtype=torch.float64)
    losses = []
    with watch(model, optimizer, **watching) as w:
        for _ in range(steps):
            optimizer.zero_grad()
            loss = 0.5 * (model(x) ** 2).sum()
            loss.backward()
            w.log(loss=loss)
            losses.append(float(loss.detach()))
            optimizer.step()
    return w, losses, model


def test_records_every_loss_and_probes_now_and_then():
    w, losses, _ = loop(25, probes=("gradient_norm", "lr"), every=10)
    assert w.record["loss"][0].tolist() == losses
    assert w.record.curves("gradient_norm").steps.tolist() == [0, 10, 20]
    # For f = |w|^2 / 2 the gradient is w, so |g|^2 = 2 f.
    expected = np.sqrt(2 * np.array(losses)[[0, 10, 20]])
    np.testing.assert_allclose(w.record["gradient_norm"][0], expected, rtol=1e-12)


def guarantee(lr, rate):
    return Guarantee(
        name="geometric",
        statement="f(x_n) <= rate^n f(x_0)",
        source="closed form",
        quantity="loss",
        sense="upper",
        holds_in="every run",
        bound=lambda r: rate ** np.arange(r["loss"].shape[1]) * r["loss"][0, 0],
    )


def test_certify_kept_and_broken():
    w, _, _ = loop(30)
    assert w.certify(guarantee(0.1, 0.9**2)).verdict is Verdict.KEPT
    assert w.certify(guarantee(0.1, 0.85**2)).verdict is Verdict.BROKEN


def test_own_probe_may_return_several_quantities():
    def probe(model, optimizer):
        return {"a": 1.0, "b": float(optimizer.param_groups[0]["lr"])}

    w, _, _ = loop(3, probes={"mine": probe}, every=1)
    assert w.record["b"][0].tolist() == [0.1] * 3


def test_accumulated_losses_are_averaged():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as w:
        for value in (1.0, 3.0):
            w.log(loss=value)
        optimizer.step()
        w.log(loss=5.0)
    assert w.record["loss"][0].tolist() == [2.0, 5.0]


def test_non_finite_stops_with_step_and_checkpoint(tmp_path):
    path = tmp_path / "good.pt"
    with pytest.raises(NonFiniteError, match=r"loss is inf at step \d+.*good.pt \(step \d+\)"):
        loop(20_000, lr=3.0, every=50, checkpoint=path, folder=tmp_path / "record")
    state = torch.load(path)
    assert all(bool(torch.isfinite(t).all()) for t in state["model"].values())
    # What was recorded up to the failure is on disk.
    flushed = Record.read(tmp_path / "record")["loss"][0]
    assert math.isinf(flushed[-1])
    assert len(flushed) > 50


def test_errors_inside_the_loop_pass_and_flush(tmp_path):
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with (
        pytest.raises(KeyError, match="user"),
        watch(model, optimizer, probes=("lr",), every=1, folder=tmp_path),
    ):
        optimizer.step()
        raise KeyError("user")
    assert Record.read(tmp_path)["lr"][0].tolist() == [0.1]


def test_bad_arguments():
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="every must be a whole number of at least 1, got 0"):
        watch(model, optimizer, every=0)
    with pytest.raises(
        UnknownNameError, match="unknown probe 'sharpness'; there are: aiming, gradient_norm"
    ):
        watch(model, optimizer, probes=("sharpness",))


def test_watching_stops_at_close():
    w, _, model = loop(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    assert w.step == 2


def test_what_the_optimizer_is_set_to_becomes_facts():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, nesterov=False)
    with watch(model, optimizer, every=2) as w:
        for step in range(4):
            if step == 1:
                optimizer.param_groups[0]["momentum"] = 0.9
            optimizer.zero_grad()
            model(torch.ones(1, 2)).square().sum().backward()
            optimizer.step()
    facts = w.record.facts
    assert facts["optimizer"].all == ("SGD",)
    assert facts["momentum"].all == (0, 0.9)  # seen at steps 0 and 2
    assert facts["nesterov"].all == (False,)
    assert "lr" not in facts
    assert "params" not in facts


def quadratic():
    model = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    return model, torch.eye(3, dtype=torch.float64)


def loss_of(model, x, called):
    y = model(x) if called else x @ model.weight.T
    return 0.5 * (y**2).sum()


WHENS = ("before backward", "before step", "after step", "after zero_grad")
# Before backward, in a loop that never calls the module, nothing tells of the step: log(step=...) does.
CASES = [c for c in itertools.product(WHENS, (1, 3), (True, False)) if c != (WHENS[0], 3, False)]


@pytest.mark.parametrize(("when", "every", "called"), CASES, ids=str)
def test_a_value_is_recorded_at_the_step_that_it_was_computed_for(when, every, called):
    model, x = quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    expected = {}
    with (
        watch(model, optimizer) as w,
        pytest.warns(UserWarning, match=r"loss was logged after optimizer.step\(\)")
        if when.startswith("after")
        else nullcontext(),
    ):
        for step in range(7):
            optimizer.zero_grad()
            loss = loss_of(model, x, called)
            log = step % every == 0
            if log:
                expected[step] = float(loss.detach())
            if log and when == "before backward":
                w.log(loss=loss)
            loss.backward()
            if log and when == "before step":
                w.log(loss=loss)
            optimizer.step()
            if when == "after zero_grad":
                optimizer.zero_grad()
            if log and when.startswith("after"):
                w.log(loss=loss)
    found = w.record.curves("loss")
    assert dict(zip(found.steps.tolist(), found.values[0].tolist(), strict=True)) == expected


def test_late_logging_is_told_once():
    model, x = quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    words = r"recorded at step 0, the one just taken.* log\(step=..., loss=...\)"
    with watch(model, optimizer) as w:
        for step in range(4):
            optimizer.zero_grad()
            loss_of(model, x, True).backward()
            optimizer.step()
            # Once: warnings are errors here.
            with nullcontext() if step else pytest.warns(UserWarning, match=words):
                w.log(loss=1.0, other=2.0)


@pytest.mark.parametrize("inside", [True, False])
def test_the_loss_of_a_closure_is_that_of_its_step(inside):
    model, x = quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    with watch(model, optimizer) as w:

        def closure():
            optimizer.zero_grad()
            loss = loss_of(model, x, True)
            loss.backward()
            seen.append(float(loss.detach()))
            if inside:
                w.log(loss=loss)
            return loss

        for _ in range(4):
            loss = optimizer.step(closure)
            if not inside:
                w.log(loss=loss)
    assert w.record.curves("loss").steps.tolist() == [0, 1, 2, 3]
    assert w.record["loss"][0].tolist() == seen


def test_what_is_evaluated_at_the_new_parameters_is_the_next_step_s():
    model, x = quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    gaps = []
    with watch(model, optimizer) as w:
        for step in range(4):
            optimizer.zero_grad()
            loss_of(model, x, True).backward()
            optimizer.step()
            gap = loss_of(model, x, True)
            gaps.append(float(gap.detach()))
            w.log(gap=gap)
            w.log(step=step, own=float(step))
    assert w.record.curves("gap").steps.tolist() == [1, 2, 3, 4]
    assert w.record["gap"][0].tolist() == gaps
    assert w.record["own"][0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_copy_of_a_watched_model_is_a_model():
    model, x = quadratic()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer) as w:
        copied = pickle.loads(pickle.dumps(copy.deepcopy(model)))
        assert float(loss_of(copied, x, True).detach()) == 1.5
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        for _ in range(2):
            loss = loss_of(compiled, x, True)
            loss.backward()
            w.log(loss=loss)
            optimizer.step()
    assert w.record["loss"].shape == (1, 2)
    assert not model._forward_pre_hooks


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Adagrad"])
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_seen_without_a_loss_scale_and_skipped_steps_are_none(kind, fused):
    def run(scaler, overflow=-1):
        torch.manual_seed(0)
        model, x = nn.Linear(3, 1), torch.eye(3)
        optimizer = getattr(torch.optim, kind)(model.parameters(), 0.1, fused=fused)
        with watch(model, optimizer, probes=("gradient_norm",), every=1) as w:
            for i in range(4):
                loss = model(x).square().sum() * (math.inf if i == overflow else 1)
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
        return w.record["gradient_norm"][0], w.step

    plain, _ = run(torch.amp.GradScaler("cpu", enabled=False))
    scaled, _ = run(torch.amp.GradScaler("cpu", init_scale=3.0e4))
    np.testing.assert_allclose(scaled, plain, rtol=1e-5)
    skipping, steps = run(torch.amp.GradScaler("cpu", init_scale=3.0e4), overflow=1)
    np.testing.assert_allclose(skipping, plain[:3], rtol=1e-5)
    assert steps == 3
