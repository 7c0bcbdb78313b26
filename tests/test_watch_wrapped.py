"""Loops of others: optimizers of Accelerate, Opacus, Lightning and transformers, watched where they step."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from surefoot import watch
from surefoot._watching.wrapped import innermost

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
Y = torch.randn(24, 1, generator=torch.Generator().manual_seed(1))


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Linear(3, 1)


def norm(model):
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))


def plain(batches, lr=0.1):
    """(losses, gradient norms) of gradient descent on batches of rows."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    losses, norms = [], []
    for rows in batches:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(X[rows]), Y[rows])
        loss.backward()
        losses.append(float(loss.detach()))
        norms.append(norm(model))
        optimizer.step()
    return losses, norms


BATCHES = [slice(8 * i, 8 * i + 8) for i in range(3)]


def test_a_gradient_that_the_closure_computes_is_the_one_that_is_looked_at():
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, probes=("gradient_norm", "parameter_norm"), every=1) as w:
        for rows in BATCHES:

            def closure(rows=rows):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model(X[rows]), Y[rows])
                loss.backward()
                return loss

            w.log(loss=optimizer.step(closure))
    losses, norms = plain(BATCHES)
    np.testing.assert_allclose(w.record["loss"][0], losses, rtol=1e-6)
    np.testing.assert_allclose(w.record["gradient_norm"][0], norms, rtol=1e-6)
    first = math.sqrt(
        sum(float(p.detach().double().square().sum()) for p in network().parameters())
    )
    assert w.record["parameter_norm"][0, 0] == pytest.approx(first, rel=1e-6)


def test_a_closure_that_is_asked_many_times_is_looked_at_once_a_step():
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=5)
    calls, seen = [], []

    def closure():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(X), Y)
        loss.backward()
        calls.append(norm(model))
        return loss

    with watch(model, optimizer, probes=("gradient_norm",), every=1) as w:
        for _ in range(2):
            seen.append(len(calls))
            optimizer.step(closure)
    assert len(calls) > 4
    expected = [calls[i] for i in seen]
    np.testing.assert_allclose(w.record["gradient_norm"][0], expected, rtol=1e-6)


def test_accelerate_counts_updates_and_not_batches():
    accelerate = pytest.importorskip("accelerate", reason="needs the llm extra")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = network(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    halves = [slice(4 * i, 4 * i + 4) for i in range(6)]
    with watch(model, optimizer, probes=("gradient_norm",), every=1) as w:
        for rows in halves:
            with accelerator.accumulate(model):
                loss = nn.functional.mse_loss(model(X[rows]), Y[rows])
                accelerator.backward(loss)
                w.log(loss=loss)
                optimizer.step()
                optimizer.zero_grad()
    losses, norms = plain(BATCHES)
    assert w.step == 3
    np.testing.assert_allclose(w.record["loss"][0], losses, rtol=1e-5)
    np.testing.assert_allclose(w.record["gradient_norm"][0], norms, rtol=1e-5)
    assert w.record.facts["optimizer"].all == ("SGD",)
    assert w.record.facts["wrapped"].all == ("AcceleratedOptimizer",)


@pytest.mark.parametrize("parts", [1, 2])
def test_opacus_shows_what_its_steps_take(parts):
    opacus = pytest.importorskip("opacus", reason="needs the privacy extra")
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model, optimizer, _ = opacus.PrivacyEngine().make_private(
            module=model, optimizer=optimizer, data_loader=loader, noise_multiplier=0.0,
            max_grad_norm=1e6, poisson_sampling=False,
        )  # fmt: skip
        with watch(model, optimizer, probes=("gradient_norm",), every=1) as w:
            for rows in BATCHES:
                width = 8 // parts
                for i in range(parts):
                    some = slice(rows.start + i * width, rows.start + (i + 1) * width)
                    optimizer.signal_skip_step(do_skip=i + 1 < parts)
                    optimizer.zero_grad()
                    loss = nn.functional.mse_loss(model(X[some]), Y[some])
                    loss.backward()
                    w.log(loss=loss)
                    optimizer.step()
    losses, norms = plain(BATCHES)
    assert w.step == 3
    np.testing.assert_allclose(w.record["loss"][0], losses, rtol=1e-5)
    np.testing.assert_allclose(w.record["gradient_norm"][0], norms, rtol=1e-5)
    assert w.record.facts["wrapped"].all == ("DPOptimizer",)
    assert w.record.facts["optimizer"].all == ("SGD inside DPOptimizer",)


class Engine:
    """As DeepSpeed's optimizers do: no torch optimizer, and one inside."""

    def __init__(self, optimizer):
        self.optimizer, self.param_groups = optimizer, optimizer.param_groups

    def step(self):
        self.optimizer.step()


class Ahead(torch.optim.SGD):
    """A torch optimizer that holds another one and never asks it: it is the one that steps."""

    def __init__(self, params, inner):
        super().__init__(params, lr=0.1)
        self.optimizer = inner


def test_an_optimizer_with_a_step_of_its_own_is_watched_itself():
    model = network()
    inner = torch.optim.Adam(model.parameters())
    outer = Ahead(model.parameters(), inner)
    assert innermost(outer) is outer
    with watch(model, outer, probes=("lr",), every=1) as w:
        model(X).sum().backward()
        outer.step()
    assert w.step == 1
    assert w.record.facts["optimizer"].all == ("Ahead",)


def test_what_only_holds_an_optimizer_is_watched_inside():
    model = network()
    real = torch.optim.Adam(model.parameters(), lr=0.1)
    assert innermost(Engine(Engine(real))) is real
    with watch(model, Engine(real), probes=("lr",), every=1) as w:
        model(X).sum().backward()
        Engine(real).step()
    assert w.record["lr"][0].tolist() == [0.1]
    assert w.record.facts["wrapped"].all == ("Engine",)


@pytest.mark.parametrize("thing", [None, "SGD", nn.Linear(1, 1), Engine], ids=str)
def test_what_holds_none_is_refused(thing):
    with pytest.raises(TypeError, match=r"optimizer must be an? .*Optimizer.*, got"):
        watch(nn.Linear(1, 1), thing)
