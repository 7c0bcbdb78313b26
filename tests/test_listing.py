"""One list of certificates: methods found by their hook, in one order, with what did not survive and why."""

import importlib
import inspect
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

import surefoot
from surefoot import Record, Verdict
from surefoot.guarantee import assume_plain_gradients
from surefoot.listing import CLAIMS, HOOK, lettered, with_hook
from surefoot.privacy import standard

PRIVATE = {
    "mechanism": "poisson-subsampled gaussian", "noise_multiplier": 2.0, "sample_rate": 0.1, "steps": 40,
    "clip_norm": 24.0, "clipping": "per example", "non_finite": "zero", "sampling": "poisson",
    "adjacency": "add/remove", "divisor": "constant", "secret_noise": True, "secret_sampling": True,
    "population_public": True, "released": "noised scalars", "forward_only": True, "directions": 2,
    "trained_numbers": 100, "releases": "all", "optimizer": "LOZO", "private_run": "a",
}  # fmt: skip


def federated(record, up=136.0):
    for t in (1, 2):
        counts = {
            "bytes up": up,
            "promised bytes up": 136.0,
            "bytes down": 144.0,
            "promised bytes down": 144.0,
        }
        record.update(0, t, counts)
    return record


def lozo(record):
    from surefoot.zeroth_order import LOZO

    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    x = torch.ones(5, 4)
    optimizer = LOZO(model, lr=1e-2, seed=0, v_dist="orthogonal", record=record)
    for _ in range(3):
        optimizer.step(lambda: model(x).square().mean())
    return optimizer.record


def claims(found):
    return [c.details.get("claim", "") for c in found]


def test_a_composed_run_has_one_list_in_the_order_of_its_claims():
    record = lozo(Record())
    record.note(0, **{k: v for k, v in PRIVATE.items() if k != "optimizer"})
    found = surefoot.certificates(federated(record), delta=1e-5)
    assert claims(found) == ["P", "H", "Z", "W", "W", ""]
    private, hidden, _, up, down, gradient = found
    assert private.verdict is Verdict.UNDECIDED
    assert private.details["epsilon"] == standard(2.0, 0.1, 40).epsilon(1e-5).value
    assert hidden.verdict is Verdict.NOT_PROMISED
    assert "T K = 80 <= 100 trained numbers" in hidden.reason
    assert up.verdict is down.verdict is Verdict.KEPT
    # The theorem of plain LOZO does not survive clipping and noise, and says so.
    assert gradient.verdict is Verdict.NOT_PROMISED
    assert "clipped per example and noised" in gradient.reason


def test_a_planted_byte_breaks_its_claim_in_the_list():
    found = surefoot.certificates(federated(Record(), up=137.0))
    assert [c.verdict for c in found] == [Verdict.BROKEN, Verdict.KEPT]


def test_a_plain_run_keeps_the_theorem_of_its_method():
    (found,) = surefoot.certificates(lozo(Record()))
    assert found.verdict is Verdict.UNDECIDED
    assert "give L, sigma2, delta0" in found.reason


def test_a_record_without_facts_gives_an_empty_list():
    record = Record()
    record.append(0, 0, loss=1.0)
    assert surefoot.certificates(record) == surefoot.certificates(Record()) == []


def test_every_arm_answers_under_its_name():
    record = Record()
    for name in ("a", "b"):
        record.note(None, name, **PRIVATE)
    found = surefoot.certificates(record, delta=1e-5)
    assert claims(found) == ["P", "P", "H", "H"]
    assert [c.name.partition(":")[0] for c in found] == ["a", "b", "a", "b"]


def test_repsgd_that_was_clipped_and_noised_follows_no_branches():
    record = Record()
    record.note(multipliers=2, client="sgd", optimizer="RepSGD")
    (plain,) = surefoot.certificates(record)
    assert plain.verdict is Verdict.UNDECIDED
    record.note(clipping="per example", clip_norm=1.0, noise_multiplier=1.0)
    (trajectory,) = (c for c in surefoot.certificates(record) if "branches" in c.name)
    assert trajectory.verdict is Verdict.NOT_PROMISED
    assert "clipped per example and noised" in trajectory.reason


@pytest.mark.parametrize("method", ["rac_lora", "fed_rac"])
def test_chains_say_what_they_lack_and_what_noise_voids(method):
    record = Record()
    record.note(method=method, sketch="orthonormal", precondition=False, shared_sketch=True)
    record.append(0, 0, gamma=0.1, sketch_high=1.0, steps=1)
    plain = surefoot.certificates(record)
    assert {c.verdict for c in plain} == {Verdict.UNDECIDED}
    assert {a.holds for c in plain for a in c.assumptions if a.name in ("smooth", "step size")} == {
        None
    }
    record.note(clipping="per example", noise_multiplier=1.0)
    noised = [c for c in surefoot.certificates(record, delta=1e-5) if not c.details.get("claim")]
    assert len(noised) == len(plain)
    assert {c.verdict for c in noised} == {Verdict.NOT_PROMISED}


@pytest.mark.parametrize(
    ("facts", "fails"),
    [
        ({}, False), ({"clipping": "none"}, False), ({"noise_multiplier": 0.0}, False),
        ({"clipping": "per example", "clip_norm": math.inf, "noise_multiplier": 0.0}, False),
        ({"clipping": "per example", "clip_norm": 1.0}, True), ({"noise_multiplier": 1.0}, True),
        ({"history": "[[1, 0.1, 3]]"}, True), ({"clipping": "per example"}, True),
    ],
)  # fmt: skip
def test_gradients_that_were_clipped_or_noised_are_plain_no_more(facts, fails):
    record = Record()
    record.note(**facts)
    found = assume_plain_gradients(record)
    assert bool(found) == fails
    assert all(a.holds is False for a in found)


def test_hooks_take_what_is_asked_and_are_found_without_an_import():
    names = with_hook()
    assert {"federated", "privacy", "zeroth_order"} <= set(names)
    for name in names:
        hook = getattr(importlib.import_module(f"surefoot.{name}.guarantee"), HOOK)
        kinds = [p.kind for p in inspect.signature(hook).parameters.values()]
        assert kinds == [inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_KEYWORD]
        assert hook(Record(), delta=None, audit=None) == []
    code = (
        "import sys; from surefoot.listing import with_hook; with_hook();"
        "print([m for m in sys.modules if m.endswith('.guarantee') and m != 'surefoot.guarantee'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_letters_are_kept_through_json():
    (found, _) = surefoot.certificates(federated(Record()))
    assert set(claims([found])) <= set(CLAIMS)
    assert surefoot.Certificate.from_json(lettered(found, "R").to_json()).details == {"claim": "R"}


def test_arms_are_those_that_noted_a_fact():
    record = Record()
    record.note(3, "b", one=1)
    record.note(None, "a", two=2)
    record.note(one=1)
    assert record.arms("one") == ["", "b"]
    assert record.arms("one", "two") == ["", "a", "b"]
    assert record.arms("three") == []


def test_a_private_lozo_has_its_list_from_what_it_noted_itself():
    """Nothing is told a second time: sampler and optimizer noted all that P and H ask for."""
    from surefoot.zeroth_order import LOZO, Privacy

    torch.manual_seed(0)
    model, x = nn.Linear(4, 3), torch.randn(30, 4)
    privacy = Privacy(2.0, 0.5, 0.3, 30)
    optimizer = LOZO(model, lr=1e-2, seed=0, scale="unit", privacy=privacy)
    for rows in privacy.sampler(steps=5):
        optimizer.step(lambda rows=rows: model(x[rows]).square().mean(dim=1))
    found = surefoot.certificates(optimizer.record, delta=1e-5)
    assert claims(found)[:3] == ["P", "H", "Z"]
    assert found[0].verdict is Verdict.UNDECIDED
    assert {a.holds for a in found[0].assumptions} == {True}
    assert found[0].details["epsilon"] == standard(2.0, 0.3, 5).epsilon(1e-5).value
    assert found[1].reason.startswith("directions are public, T K = 5 <= 15 trained numbers")
