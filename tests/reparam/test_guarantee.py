"""Conditions are read off what ran: kept, broken by a planted fault, not promised, not known."""

import copy
import pickle

import pytest
import torch
from tests.reparam.nets import batches, loss_of, net, pair, step
from torch import nn

from surefoot import Record, certify
from surefoot.reparam import (
    RepAdamW,
    RepSGD,
    Shadow,
    branch_scales,
    clip_csla_norm_,
    convert_to_plain,
    decay_groups,
    one_step_defect,
    wrap,
)
from surefoot.reparam._block.facts import network_facts
from surefoot.reparam._optimizer import clipping
from surefoot.reparam._optimizer.facts import MOST, VARIES, settings_of
from surefoot.reparam.guarantee import clipped_norm, federated_trajectory, trajectory


def judged(plain, ours, csla, theirs, before=None, count=3):
    """G1 of a few steps, read off a record that was told nothing."""
    record = Record()
    for t, batch in enumerate(batches(count)):
        one_step_defect(plain, ours, csla, theirs, loss_of(batch), before, record=record, step=t)
    return certify(record, trajectory())


def states(certificate):
    return {a.name: a.holds for a in certificate.assumptions}


def converted(kind="sgd", theirs=None, **settings):
    csla = net("silu")
    plain, mults = convert_to_plain(csla, seed=None)
    if kind == "rep_adamw":
        ours = RepAdamW(plain.named_parameters(), 1e-3, scales=branch_scales(csla), **settings)
        return plain, ours, csla, torch.optim.AdamW(csla.parameters(), lr=1e-3, weight_decay=0.0)
    inner = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}[kind]
    ours = wrap(inner(plain.named_parameters(), lr=1e-3), mults, force=True)
    return plain, ours, csla, (theirs or inner)(csla.parameters(), lr=1e-3)


@pytest.mark.parametrize("kind", ["sgd", "rep_adamw"])
def test_kept_where_every_condition_was_recorded(kind):
    found = judged(*converted(kind))
    assert found.verdict == "KEPT"
    assert set(states(found).values()) == {True}
    assert found.tightness < 0.2


@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_an_optimizer_that_normalises_is_not_promised(kind):
    """The example of the issue: Adam came out BROKEN, "holds; client sgd"."""
    found = judged(*converted(kind))
    assert found.tightness > 1
    assert found.verdict == "NOT_PROMISED"
    assert "linear client fails" in found.reason


def test_the_authors_adam_is_not_promised():
    assert judged(*converted("rep_adamw", variant="authors")).verdict == "NOT_PROMISED"


@pytest.mark.parametrize(
    "change", [{"lr": 0.1}, {"momentum": 0.5}, {"weight_decay": 0.1}, {"nesterov": True, "momentum": 0.9}]
)  # fmt: skip
def test_two_networks_under_different_settings_are_not_promised(change):
    plain, ours, csla, _ = pair(net("silu"))
    settings = {"lr": 0.05, "momentum": 0.0} | change
    found = judged(plain, ours, csla, torch.optim.SGD(csla.parameters(), **settings))
    assert found.verdict == "NOT_PROMISED"
    assert states(found)["same rule"] is False


def test_a_step_that_nobody_knows_neither_holds_nor_fails():
    class Mine(RepSGD):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad.mul_(2.0)
            return super().step(closure)

    csla = net("silu")
    plain, mults = convert_to_plain(csla, seed=None)
    found = judged(
        plain, Mine(plain.named_parameters(), 0.05, grad_mults=mults), csla,
        torch.optim.SGD(csla.parameters(), lr=0.05),
    )  # fmt: skip
    assert states(found)["linear client"] is None
    assert found.verdict == "BROKEN"


def test_a_plain_optimizer_without_multipliers_is_broken():
    plain, _, csla, theirs = pair(net("silu"))
    found = judged(plain, torch.optim.SGD(plain.parameters(), lr=0.05), csla, theirs)
    assert states(found)["linear client"] is True
    assert found.verdict == "BROKEN"


def clip_both(csla, how):
    def before(optimizer):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if any(p is q for p in parameters for q in csla.parameters()) or how == "naive":
            nn.utils.clip_grad_norm_(parameters, 0.05)
        elif how == "csla":
            clip_csla_norm_(optimizer, 0.05)

    return before


@pytest.mark.parametrize(
    ("how", "holds", "verdict"), [("csla", True, "KEPT"), ("naive", False, "NOT_PROMISED")]
)
def test_clipping_is_what_was_seen_of_it(how, holds, verdict):
    plain, ours, csla, theirs = pair(net("silu"))
    found = judged(plain, ours, csla, theirs, clip_both(csla, how))
    assert states(found)["clipping"] is holds
    assert found.verdict == verdict


def test_a_hook_that_scales_both_alike_keeps_it():
    plain, ours, csla, theirs = pair(net("silu"))

    def halve(optimizer):
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad.mul_(0.5)

    found = judged(plain, ours, csla, theirs, halve)
    assert found.verdict == "KEPT"
    assert "clip = alike" in found.summary()


def test_a_clipping_that_takes_the_wrong_norm_is_broken(monkeypatch):
    """The planted fault: clip_csla_norm_ forgets the multipliers, and says that it did not."""
    monkeypatch.setattr(
        clipping, "csla_norm", lambda o: torch.stack(
            [p.grad.norm() for group in o.param_groups for p in group["params"]]
        ).norm(),
    )  # fmt: skip
    plain, ours, csla, theirs = pair(net("silu"))
    found = judged(plain, ours, csla, theirs, clip_both(csla, "csla"))
    assert states(found)["clipping"] is True
    assert found.verdict == "BROKEN"


def test_a_hook_that_looks_and_touches_nothing_is_no_clipping():
    seen = []
    found = judged(*pair(net("silu")), seen.append)
    assert len(seen) == 6
    assert states(found)["clipping"] is True


def test_clipping_by_the_plain_norm_that_was_noted_is_not_promised():
    record = Record()
    record.update(0, 0, {"one-step defect": 1.0, "clipping norm error": 1.0})
    record.note(clip="plain")
    for promise in (trajectory(), clipped_norm()):
        assert certify(record, promise).verdict == "NOT_PROMISED"


def test_what_was_not_recorded_does_not_hold():
    record = Record()
    record.update(
        0, 0, {"one-step defect": 1e-17, "clipping norm error": 0.0, "free-running gap": 0.0}
    )
    for promise in (trajectory(), clipped_norm(), federated_trajectory()):
        assert set(states(certify(record, promise)).values()) == {None}
    # Without a precision the bound is float64's, the least favourable one.
    assert trajectory().bound(record)[0, 0] == 50 * torch.finfo(torch.float64).eps


def test_a_record_of_two_precisions_is_judged_by_neither():
    record = Record()
    record.update(0, 0, {"one-step defect": 1e-8})
    record.note(dtype="float64")
    record.note(dtype="float32")
    assert certify(record, trajectory()).verdict == "NOT_PROMISED"
    assert trajectory().bound(record)[0, 0] == 50 * torch.finfo(torch.float64).eps


def test_arms_of_one_record_are_kept_apart():
    record = Record()
    for of, kind in (("a", "sgd"), ("b", "adam")):
        plain, ours, csla, theirs = converted(kind)
        for t, batch in enumerate(batches(2)):
            one_step_defect(plain, ours, csla, theirs, loss_of(batch), record=record, step=t, of=of)
    assert certify(record, trajectory(of="a")).verdict == "KEPT"
    assert certify(record, trajectory(of="b")).verdict == "NOT_PROMISED"


def test_a_record_wants_the_number_of_the_step():
    with pytest.raises(ValueError, match="number of the step"):
        one_step_defect(*pair(net()), loss_of(next(batches(1))), record=Record())


def optimizer_of(kind, record=None):
    csla = net("silu")
    plain, mults = convert_to_plain(csla, seed=None)
    if kind == "sgd":
        groups = decay_groups(plain, 1e-2)
        return plain, RepSGD(groups, 0.05, grad_mults=mults, momentum=0.9, record=record, seed=3)
    if kind == "adamw":
        scales = branch_scales(csla)
        return plain, RepAdamW(plain.named_parameters(), 0.05, scales=scales, record=record, seed=3)
    inner = torch.optim.SGD(plain.named_parameters(), lr=0.05, momentum=0.9)
    return plain, wrap(inner, mults, record=record, seed=3)


KINDS = ["sgd", "adamw", "wrapped"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_optimizer_notes_what_it_does(kind):
    record = Record()
    plain, optimizer = optimizer_of(kind, record)
    assert optimizer.record is record
    for t, batch in enumerate(batches(3)):
        optimizer.param_groups[0]["lr"] = 0.05 / (t + 1)
        step(plain, optimizer, batch)
    curves = record.curves("lr")
    assert (curves.seeds.tolist(), curves.steps.tolist()) == ([3], [0, 1, 2])
    top = 0.05 if kind == "sgd" else None  # of two groups, the second keeps its rate
    assert curves.values[0].tolist() == [top or 0.05, top or 0.025, top or 0.05 / 3]
    facts = {name: known.values[3] for name, known in record.facts.items()}
    assert facts["client"] == ("rep_adamw" if kind == "adamw" else "sgd",)
    assert facts["multipliers"] == (4,)
    assert facts["parameter_dtype"] == ("float64",)
    if kind != "adamw":
        assert facts["momentum"] == (0.9,)
    if kind == "sgd":
        assert facts["weight_decay"] == (0.01, 0.0)
        assert record.fact("one_lr").all == (False,)
    (found,) = optimizer.certificates()
    assert found.verdict == "UNDECIDED"
    assert "step a Shadow beside the run" in found.reason


@pytest.mark.parametrize("kind", KINDS)
def test_clipping_is_noted_and_its_theorem_named(kind):
    plain, optimizer = optimizer_of(kind)
    step(plain, optimizer, next(batches(1)), lambda o: clip_csla_norm_(o, 0.1))
    assert optimizer.record.fact("clip").all == ("csla",)
    assert [c.name for c in optimizer.certificates()][1] == "exact clipping (G3)"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copy_has_a_record_of_its_own(kind, copied):
    plain, optimizer = optimizer_of(kind)
    all_batches = list(batches(2))
    step(plain, optimizer, all_batches[0])
    other, again = copied((plain, optimizer))
    step(other, again, all_batches[1])
    assert len(optimizer.record.curves("lr").steps) == 1
    assert len(again.record.curves("lr").steps) == 2
    assert again.record.fact("client").all == optimizer.record.fact("client").all


def test_settings_that_change_are_both_kept_and_those_that_keep_moving_vary():
    plain, optimizer = optimizer_of("sgd")
    for t, batch in enumerate(batches(MOST + 3)):
        for group in optimizer.param_groups:
            group["momentum"] = t / 100
        step(plain, optimizer, batch)
    assert optimizer.record.fact("momentum").all == (*(t / 100 for t in range(MOST)), VARIES)


def test_a_loaded_state_is_looked_at_again():
    plain, optimizer = optimizer_of("sgd")
    step(plain, optimizer, next(batches(1)))
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        group["momentum"] = 0.5
    for entry in state["state"].values():
        if "grad_mult" in entry:
            entry["grad_mult"] = 3 * entry["grad_mult"]
    before = optimizer.record.fact("largest_multiplier").all[0]
    optimizer.load_state_dict(state)
    step(plain, optimizer, next(batches(1)))
    assert optimizer.record.fact("momentum").all == (0.9, 0.5)
    assert optimizer.record.fact("largest_multiplier").all == (before, 3 * before)


def test_a_shadow_writes_into_the_run_and_its_certificate_is_the_optimizers():
    plain, ours, csla, theirs = pair(net("silu"), momentum=0.9)
    shadow = Shadow(csla, theirs, plain, ours)
    for batch in batches(3):
        step(plain, ours, batch)
        shadow.step(loss_of(batch))
    assert shadow.record is ours.record
    (found,) = ours.certificates()
    assert found.verdict == shadow.certificates()[0].verdict == "KEPT"
    assert set(states(found).values()) == {True}
    assert ours.record.curves("free-running gap").steps.tolist() == [0, 1, 2]
    # The copy that the shadow steps writes nowhere else.
    assert len(ours.record.curves("lr").steps) == 3


def test_a_shadow_beside_another_optimizer_says_so():
    csla = net("silu")
    plain, _ = convert_to_plain(csla, seed=None)
    adam = torch.optim.Adam(plain.parameters(), lr=1e-3)
    shadow = Shadow(csla, torch.optim.Adam(csla.parameters(), lr=1e-3), plain, adam)
    for batch in batches(2):
        step(plain, adam, batch)
        shadow.step(loss_of(batch))
    assert shadow.certificates()[0].verdict == "NOT_PROMISED"


@pytest.mark.parametrize("when", [0, 3])
def test_a_run_that_is_clipped_out_of_the_shadows_sight_is_seen(when):
    """By the plain network's own norm, which the shadow's steps know nothing of."""
    plain, ours, csla, theirs = pair(net("silu"), momentum=0.9)
    shadow = Shadow(csla, theirs, plain, ours)
    for t, batch in enumerate(batches(6)):
        ours.zero_grad()
        loss_of(batch)(plain).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1e-3 if t == when else 1e9)
        ours.step()
        shadow.step(loss_of(batch))
    (found,) = ours.certificates()
    assert found.verdict == "NOT_PROMISED"
    assert "stepped with other gradients than the branches" in found.reason


def test_a_run_that_has_converged_is_not_taken_for_a_clipped_one():
    """Where gradients vanish, their rounding is all there is of them."""
    plain, ours, csla, theirs = pair(net("silu"))
    shadow = Shadow(csla, theirs, plain, ours)
    (batch,) = batches(1)

    def loss(model):
        return 1e-14 * loss_of(batch)(model)

    for _ in range(5):
        ours.zero_grad()
        loss(plain).backward()
        for p in plain.parameters():
            p.grad.mul_(1.5)  # as far apart as noise may be
        ours.step()
        shadow.step(loss)
    assert ours.certificates()[0].verdict == "KEPT"


def test_what_an_optimizer_is_by_inspection():
    p = nn.Parameter(torch.zeros(2))
    for kind, rule in (
        (torch.optim.SGD, "sgd"), (torch.optim.AdamW, "adam"), (torch.optim.Adagrad, "normalised"),
        (torch.optim.ASGD, "unknown (ASGD)"),
    ):  # fmt: skip
        assert settings_of(kind([p], lr=0.1))["client"] == (rule,)
    found = settings_of(torch.optim.SGD([p], lr=0.1, momentum=0.9, nesterov=True, maximize=True))
    assert found["momentum"] == (0.9,)
    assert found["nesterov"] == found["maximize"] == (True,)
    assert found["largest_multiplier"] == (1.0,)


def test_what_a_network_is_by_inspection():
    assert network_facts(net("silu")) == {
        "dtype": ("float64",), "norm": ("bn",), "activation": ("silu",)
    }  # fmt: skip

    class Own(nn.Module):
        def forward(self, x):
            return torch.relu(x)

    found = network_facts(nn.Sequential(net("silu", norm="group_norm"), Own(), nn.ReLU()))
    assert found["activation"] == ("silu", "unknown (Own)", "relu")
    assert found["norm"] == ("group_norm",)


def federated(**facts):
    record = Record()
    record.update(0, 1, {"free-running gap": facts.pop("gap", 1e-15)})
    good = {"server": "fedavg", "client": "sgd", "clip": "none", "norm": "bn", "multipliers": 4,
            "dtype": "float64", "activation": "silu"}  # fmt: skip
    record.note(**{k: v for k, v in (good | facts).items() if v is not None})
    return certify(record, federated_trajectory())


def test_g2_is_kept_and_broken():
    assert federated().verdict == "KEPT"
    assert set(states(federated()).values()) == {True}
    assert federated(gap=1e-3).verdict == "BROKEN"


@pytest.mark.parametrize(
    "fact",
    [{"server": "fedadam"}, {"server": "krum"}, {"client": "adam"}, {"clip": "plain"},
     {"norm": "per_branch"}, {"multipliers": 0}, {"dtype": "float32"}, {"activation": "relu"}],
)  # fmt: skip
def test_g2_is_not_promised_under_another_rule(fact):
    found = federated(gap=1e-3, **fact)
    assert found.verdict == "NOT_PROMISED"
    assert list(states(found).values()).count(False) == 1


@pytest.mark.parametrize(
    "name", ["server", "client", "clip", "norm", "multipliers", "dtype", "activation"]
)
def test_g2_does_not_assume_what_was_not_recorded(name):
    assert list(states(federated(**{name: None})).values()).count(None) == 1
