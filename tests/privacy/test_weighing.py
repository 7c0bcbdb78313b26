"""Steps count in the heuristic as the optimizer made them count, or the heuristic is refused."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from surefoot.privacy import (
    LinearWeights,
    audit,
    compare,
    counterexamples,
    from_opacus,
    last_iterate,
    register_opacus,
)
from surefoot.privacy.doors.opacus_weights import TRUSTED_RATE, UNKNOWN_OPTIMIZER

pytest.importorskip("opacus", reason="needs the privacy extra")

DELTA, STEPS = 1e-5, 40
T = np.arange(1, STEPS + 1)
SGD = torch.optim.SGD


def layers():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))


def train(make, accountant=None, each=lambda optimizer, step: None, epochs=4):
    """100 examples in batches of 10, sigma = 1."""
    from opacus import PrivacyEngine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = layers()
        data = TensorDataset(torch.randn(100, 2), torch.randn(100, 1))
        engine = PrivacyEngine(accountant=accountant or register_opacus())
        net, optimizer, loader = engine.make_private(
            module=model, optimizer=make(model), data_loader=DataLoader(data, batch_size=10),
            noise_multiplier=1.0, max_grad_norm=1.0,
        )  # fmt: skip
        batches = (batch for _ in range(epochs) for batch in loader)
        for step, (x, y) in enumerate(batches):
            each(optimizer, step)
            optimizer.zero_grad()
            (net(x) - y).square().mean().backward()
            optimizer.step()
    return engine, net, optimizer


def expected(weights):
    return last_iterate(1.0, 0.1, STEPS, weights=weights).epsilon(DELTA)


def reason(report):
    return next(row.note for row in report.rows if row.name == "heuristic")


def recursion(lr, beta=0.0, decay=0.0, dampening=0.0):
    ends = []
    for t in range(STEPS):
        x = buffer = 0.0
        for u in range(STEPS):
            g = float(u == t) + decay * x
            buffer = g if u == 0 else beta * buffer + (1 - dampening) * g
            x -= lr[u] * buffer if beta else lr[u] * g
        ends.append(-x)
    return ends


CONSTANT = [0.1] * STEPS
COVERED = {
    "momentum": (lambda m: SGD(m.parameters(), 0.1, momentum=0.9), 1 - 0.9 ** (STEPS + 1 - T)),
    "decay": (lambda m: SGD(m.parameters(), 0.5, weight_decay=0.5), 0.75 ** (STEPS - T)),
    "momentum, decay and dampening": (
        lambda m: SGD(m.parameters(), 0.1, momentum=0.8, weight_decay=0.3, dampening=0.2),
        recursion(CONSTANT, 0.8, 0.3, 0.2),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COVERED)
def test_weighted_by_what_the_hook_sees(name):
    make, weights = COVERED[name]
    engine, *_ = train(make)
    assert engine.accountant.heuristic(DELTA).value == pytest.approx(
        expected(weights).value, abs=1e-9
    )
    report = from_opacus(engine, DELTA)
    assert any("as the accountant saw" in note for note in report.notes)


@pytest.mark.acceptance
def test_the_numbers_of_momentum_and_decay():
    """Plain 3.526; 3.401 with momentum 0.9; 2.07 where a quarter is forgotten at every step."""
    plain, *_ = train(lambda m: SGD(m.parameters(), 0.1))
    assert plain.accountant.heuristic(DELTA).value == pytest.approx(3.526, abs=1e-3)
    momentum, *_ = train(COVERED["momentum"][0])
    assert momentum.accountant.heuristic(DELTA).value == pytest.approx(3.401, abs=1e-3)
    value = train(COVERED["decay"][0])[0].accountant.heuristic(DELTA)
    assert value.lower <= 2.075 <= value.upper


def test_settings_that_change_on_the_way():
    def change(optimizer, step):
        optimizer.param_groups[0]["weight_decay"] = 0.5 * (step >= 20)
        optimizer.param_groups[0]["lr"] = 0.1 * 0.95**step

    engine, *_ = train(lambda m: SGD(m.parameters(), 0.1), each=change)
    ends = []
    for t in range(STEPS):
        x = 0.0
        for u in range(STEPS):
            x -= 0.1 * 0.95**u * (float(u == t) + 0.5 * (u >= 20) * x)
        ends.append(-x)
    assert engine.accountant.heuristic(DELTA).value == pytest.approx(expected(ends).value, abs=1e-9)


def groups(model, *settings):
    return [
        {"params": list(part.parameters()), **s} for part, s in zip(model, settings, strict=True)
    ]


REFUSED = {
    "Adam": (lambda m: torch.optim.Adam(m.parameters(), 0.1), "linear in the gradients, got Adam"),
    "RMSprop": (lambda m: torch.optim.RMSprop(m.parameters(), 0.1), "got RMSprop"),
    "NAdam": (lambda m: torch.optim.NAdam(m.parameters(), 0.1), "got NAdam"),
    "Rprop": (lambda m: torch.optim.Rprop(m.parameters(), 0.1), "got Rprop"),
    "momentum of one group": (
        lambda m: SGD(groups(m, {"momentum": 0.9}, {}), lr=0.1),
        "momentum of the parameter groups differ",
    ),
    "rates of the groups under decay": (
        lambda m: SGD(groups(m, {"lr": 0.1}, {"lr": 0.3}), lr=0.1, weight_decay=0.1),
        "depends on where the example's gradient lies",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_where_the_theory_does_not_cover_it(name):
    make, words = REFUSED[name]
    engine, _, optimizer = train(make, epochs=1)
    with pytest.raises(ValueError, match=f"no last-iterate value: .*{words}"):
        engine.accountant.heuristic(DELTA)
    for report in (
        from_opacus(engine, DELTA),
        from_opacus({"history": engine.accountant.history}, DELTA, optimizer=optimizer),
    ):
        assert report.heuristic is None
        assert reason(report).startswith("no last-iterate value")
        assert report.standard is not None
        assert {c.guarantee.name for c in report.certificates()} == set()


def test_rates_of_groups_that_move_apart_are_refused():
    def move(optimizer, step):
        optimizer.param_groups[1]["lr"] = 0.1 * 0.9**step

    make = lambda m: SGD(groups(m, {}, {}), lr=0.1)  # noqa: E731
    engine, *_ = train(make, each=move, epochs=1)
    with pytest.raises(ValueError, match="learning rates of the parameter groups moved apart"):
        engine.accountant.heuristic(DELTA)


def test_another_optimizer_on_the_way_is_refused():
    engine, *_ = train(lambda m: SGD(m.parameters(), 0.1), epochs=1)
    engine.accountant.observed["optimizers"].append("Adam")
    with pytest.raises(ValueError, match="optimizer changed along the training: SGD, Adam"):
        engine.accountant.heuristic(DELTA)


class Slow(torch.optim.SGD):
    """Half of SGD's step, and its own class."""


def test_a_saved_state_knows_torchs_own_and_asks_for_others():
    engine, *_ = train(COVERED["momentum"][0], epochs=1)
    fresh = type(engine.accountant)()
    fresh.load_state_dict(engine.accountant.state_dict())
    assert fresh.heuristic(DELTA) == engine.accountant.heuristic(DELTA)
    engine, _, optimizer = train(lambda m: Slow(m.parameters(), 0.1, momentum=0.9), epochs=1)
    fresh.load_state_dict(engine.accountant.state_dict())
    with pytest.raises(ValueError, match="Slow cannot be made again from a saved state"):
        fresh.heuristic(DELTA)
    shown = from_opacus(fresh, DELTA, optimizer=optimizer).heuristic
    assert shown == engine.accountant.heuristic(DELTA)


def test_a_state_of_an_earlier_version_is_refused_and_not_guessed():
    engine, *_ = train(COVERED["momentum"][0], epochs=1)
    state = engine.accountant.state_dict()
    for name in ("settings", "torchs", "ratios", "unequal", "optimizers"):
        del state["observed"][name]
    fresh = type(engine.accountant)()
    fresh.load_state_dict(state)
    with pytest.raises(ValueError, match="earlier version .* pass optimizer="):
        fresh.heuristic(DELTA)


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (COVERED["momentum"][0], 1 - 0.9 ** (10 + 1 - np.arange(1, 11))),
        (lambda m: torch.optim.Adam(m.parameters(), 0.1), None),
    ],
)
def test_a_checkpoint_shows_the_optimizer_s_settings(make, value, tmp_path):
    """Opacus' own accountant forgets the optimizer; the state beside it does not."""
    engine, net, optimizer = train(make, accountant="prv", epochs=1)
    path = tmp_path / "model.pt"
    engine.save_checkpoint(path=path, module=net, optimizer=optimizer)
    report = from_opacus(path, DELTA)
    if value is None:
        assert "the checkpoint's optimizer has the settings amsgrad, betas" in reason(report)
    else:
        weighted = last_iterate(1.0, 0.1, 10, weights=value).epsilon(DELTA)
        assert report.heuristic.value == pytest.approx(weighted.value, abs=1e-9)
        assert TRUSTED_RATE in report.notes


def test_an_optimizer_that_nobody_shows_is_taken_on_trust_aloud():
    report = from_opacus({"history": [(1.0, 0.1, 10)]}, DELTA)
    assert UNKNOWN_OPTIMIZER in report.notes
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    assert (
        UNKNOWN_OPTIMIZER
        not in from_opacus({"history": [(1.0, 0.1, 10)]}, DELTA, optimizer=optimizer).notes
    )


def test_a_scheduler_s_last_rate_is_told():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    clock = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    optimizer.step()
    clock.step()
    report = compare(1.0, 0.1, 10, DELTA, optimizer=optimizer)
    assert any("learning rate has moved from 0.1 to 0.05" in note for note in report.notes)
    rates = [0.1 * 0.5**t for t in range(10)]
    told = compare(1.0, 0.1, 10, DELTA, optimizer=optimizer, lr_history=rates)
    assert told.heuristic.value == last_iterate(1.0, 0.1, 10, weights=rates).epsilon(DELTA).value


def test_shuffled_batches_of_unequal_steps_are_refused():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    report = compare(1.0, 0.1, 10, DELTA, optimizer=optimizer, sampling="shuffled")
    assert report.heuristic is None
    assert "for shuffled batches only equal steps are known" in reason(report)


def test_an_audit_of_a_forward_only_training_voids_the_heuristic():
    class Ran:
        from surefoot import Record

        record = Record()

    Ran.record.note(optimizer="LOZO", forward_only=True)
    scores, coins = np.arange(100.0), np.arange(100) % 2 == 0
    found = audit.from_scores(scores, coins, delta=DELTA, k=10, claimed=(1.0, 0.1, 20))
    found.record.note(0, optimizer="LOZO", forward_only=True)
    report = compare(1.0, 0.1, 20, DELTA, audit=found)
    assert report.heuristic is None
    assert reason(report).startswith("LOZO takes forward passes only")


def test_bad_arguments_of_compare():
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="weights and optimizer exclude each other"):
        compare(1.0, 0.1, 2, DELTA, optimizer=optimizer, weights=[1.0, 1.0])
    with pytest.raises(ValueError, match="lr_history needs an optimizer"):
        compare(1.0, 0.1, 2, DELTA, lr_history=[1.0, 1.0])
    with pytest.raises(ValueError, match="optimizer must be a torch optimizer, got int"):
        compare(1.0, 0.1, 2, DELTA, optimizer=3)


class Opaque(torch.optim.Optimizer):
    """Needs what stands in no group."""

    def __init__(self, params, oracle):
        super().__init__(params, {"lr": 0.1})
        self.oracle = oracle


def test_an_optimizer_that_cannot_be_built_anew_is_told():
    optimizer = Opaque([nn.Parameter(torch.zeros(1))], object())
    with pytest.raises(ValueError, match=r"built from its settings, got Opaque: .* pass weights"):
        LinearWeights.from_optimizer(optimizer, 3)
    report = compare(1.0, 0.1, 3, DELTA, optimizer=optimizer)
    assert "got Opaque" in reason(report)


def test_every_object_with_a_heuristic_says_that_it_is_no_guarantee():
    from surefoot.privacy import LinearityMeter, calibrate, full_batch, max_steps
    from surefoot.privacy.probe import gradient_drift
    from surefoot.privacy.result import HONESTY

    def run(injections, seed):
        return sum(injections.values(), torch.zeros(3))

    mechanism = last_iterate(1.0, 0.1, 5)
    meter = LinearityMeter(run, 5)
    example = counterexamples.forgetting(0.3, 0.01, 4, 1e-3, threshold=0.95, runs=100)
    objects = [
        mechanism, mechanism.epsilon(DELTA), mechanism.delta(1.0), mechanism.tradeoff(0.1),
        mechanism.profile(np.ones(2)), mechanism.envelope(DELTA), full_batch(1.0, 0.1, 5),
        compare(1.0, 0.1, 5, DELTA), compare(1.0, 0.1, 5, DELTA, releases="all"),
        compare(1.0, 0.1, 5, DELTA).rows[1], calibrate(3.0, DELTA, 1.0, 2, by="heuristic"),
        max_steps(3.0, DELTA, 1.0, 0.1, by="heuristic", limit=9), LinearWeights(np.array([1.0, 2.0])),
        meter, meter.measure(), gradient_drift(torch.ones(2, 3)), example, example.run(),
        counterexamples.malicious_data(0.3, 0.01, 4, 1e-3),
        counterexamples.encoding(0.3, 0.01, 4, 1e-3, threshold=1.0),
    ]  # fmt: skip
    for each in objects:
        assert HONESTY in repr(each), each
        assert HONESTY in str(each), each
