"""Parts accuracy and origins: every arm tuned by one rule, on validation images, and told as it is."""

import struct

import numpy as np
import pytest
import torch

from surefoot import Record
from surefoot.reparam import ReparamConv2d, convert_to_plain
from surefoot.reparam.experiments import accuracy
from surefoot.reparam.experiments.accuracy import ARMS, CHANCE, ORIGINS, REACHED, SECONDS, SWEEP
from surefoot.reparam.study import ReparamConfig
from surefoot.reparam.task import effective_lr

TINY = {"settings": ((5, 1e5, 0.0),), "lrs": (0.1, 0.5), "rounds": 2, "images": 120, "epochs": 1,
        "arms": ARMS, "hs": 1}  # fmt: skip
NAME = "5 blocks, IID, momentum 0"


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(SWEEP, "quick", TINY)
    clear = accuracy.trained.cache_clear
    clear()
    yield
    clear()


def test_tuning_looks_at_the_first_seeds_validation_alone(tiny, monkeypatch):
    """Seed 7 is the first. On it 0.5 is best for "inf"; the others diverge there, and take 0.1."""
    asked = []

    def trained(config, seed, where, arm, origin, lr):
        asked.append((seed, arm, lr))
        if lr == 0.5 and arm != "inf" and seed == 7:
            return {}
        # On seed 8, and on test images, the other rate is ahead: neither may matter.
        ahead = (lr == 0.5) == (seed == 7)
        return {"validation": 0.9 if ahead else 0.1, "test accuracy": 0.0 if ahead else 1.0,
                "lr": lr, REACHED: 1, "CPU seconds to 70%": 1.0, "CPU seconds": 2.0,
                "effective lr": lr}  # fmt: skip

    monkeypatch.setattr(accuracy, "trained", trained)
    config, record = ReparamConfig(seed=7), Record()
    for seed in (7, 8):
        accuracy.run(config, seed, record)
    for arm in ARMS:
        assert set(record.constant(f"{NAME}, {arm}: lr")) == {0.5 if arm == "inf" else 0.1}
        tried = {lr for seed, a, lr in asked if (seed, a) == (7, arm)}
        assert tried == set(TINY["lrs"])
    found = accuracy.tables(config, record)
    rows = found["four arms, each at its own best learning rate"].set_index("arm")
    assert list(rows["seeds"]) == [2] * 4
    assert rows["test accuracy"]["inf"] == 0.5 * (0.0 + 1.0)
    # "fedrepopt" and "csla" are equal here: no noise.
    assert list(found["who is ahead"]["noise, points"]) == [0.0]
    seen = found["validation accuracy by learning rate, first seed"].set_index("arm")
    assert seen["0.5"]["inf"] == 0.9
    assert np.isnan(seen["0.5"]["rep"])


def test_effective_lr_by_hand_and_of_both_sides():
    csla = ReparamConv2d(1, 1, 3, branches=("kxk",), scales={"kxk": torch.tensor([2.0])})
    with torch.no_grad():
        csla.kernels["kxk"].fill_(0.5)
    # M = 2^2, W = 2 * 0.5 in each of nine entries.
    assert effective_lr(csla, 0.3, {}) == pytest.approx(0.3 * 4 / 9)
    csla = accuracy.build(5, "csla", 0)
    plain, mults = convert_to_plain(csla, seed=None)
    assert effective_lr(plain, 0.1, mults) == effective_lr(csla, 0.1, {})
    assert effective_lr(plain, 0.1, {}) != effective_lr(csla, 0.1, {})


def test_an_arm_that_always_diverges_has_no_row(tiny, monkeypatch):
    monkeypatch.setattr(accuracy, "trained", lambda *args: {})
    record = Record()
    accuracy.run(ReparamConfig(), 0, record)
    assert accuracy.tables(ReparamConfig(), record) == {}


@pytest.mark.acceptance
def test_both_parts_on_images_of_ones_own(tiny, tmp_path, measured):
    """Fashion-MNIST's format from a folder: two kinds of squares, which a few steps tell apart."""
    g = np.random.default_rng(0)
    for part, count in (("train", 150), ("t10k", 60)):
        labels = g.integers(0, 2, count)
        images = g.integers(0, 60, (count, 28, 28))
        images[labels == 1, 4:24, 4:24] += 150
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            path = tmp_path / f"{part}-{kind}-ubyte"
            path.write_bytes(head + array.astype(np.uint8).tobytes())
    config, record = ReparamConfig(data="fashion", images=tmp_path), Record()
    accuracy.run(config, 0, record)
    ours, csla = (record.constant(f"{NAME}, {a}: test accuracy")[0] for a in ("fedrepopt", "csla"))
    measured(
        "accuracy: FedRepOpt - CSLA, points", "<= 1.7 (one image)", f"{100 * (ours - csla):.2f}"
    )
    assert abs(ours - csla) <= 1 / 60
    assert max(record.constant(f"{NAME}, {a}: test accuracy")[0] for a in ARMS) > 0.9
    origins = Record()
    accuracy.run_origins(config, 0, origins)
    found = accuracy.origin_tables(config, origins)["where the scales come from"]
    assert list(found["scales"]) == list(ORIGINS)
    # The search starts from the formula and moved: the two are different runs of the same arm.
    assert origins.constant("largest relative move of a scale")[0] > 0
    assert record.constant(f"{NAME}, fedrepopt: test accuracy") == found["test accuracy"][0]


def reached(rounds, seconds=3.0):
    return {} if rounds is None else {REACHED: rounds, SECONDS: seconds}


def recorded(accuracies, rounds):
    """A record of two arms, one row a seed: their test accuracies and the round of the target, or None."""
    record = Record()
    for arm in ("fedrepopt", "inf"):
        for seed, (found_at, at) in enumerate(zip(accuracies[arm], rounds[arm], strict=True)):
            found = {"validation": found_at, "lr": 0.1, "CPU seconds": 9.0, "effective lr": 0.2,
                     "test accuracy": found_at, CHANCE: 0.16, **reached(at)}  # fmt: skip
            record.update(seed, 0, {f"{NAME}, {arm}: {k}": v for k, v in found.items()})
    return record


def test_what_was_not_reached_has_no_round_and_no_seconds(monkeypatch):
    monkeypatch.setitem(SWEEP, "quick", TINY)
    record = recorded(
        {"fedrepopt": [0.8, 0.9], "inf": [0.094, 0.1]},
        {"fedrepopt": [2, None], "inf": [None, None]},
    )
    found = accuracy.tables(ReparamConfig(), record)
    rows = found["four arms, each at its own best learning rate"].set_index("arm")
    assert list(rows.loc["inf", [REACHED, SECONDS]]) == ["not reached", "not reached"]
    assert list(rows.loc["fedrepopt", [REACHED, SECONDS]]) == ["2 in 1 of 2", "3 in 1 of 2"]
    assert rows["CPU seconds"].tolist() == [9.0, 9.0]
    # One arm has learnt something: it is ahead.
    (points,) = found["who is ahead"]["fedrepopt - inf, points"]
    assert points == pytest.approx(75.3)


def test_no_ranking_among_arms_at_chance(monkeypatch):
    monkeypatch.setitem(SWEEP, "quick", TINY)
    none = {"fedrepopt": [None], "inf": [None]}
    idle = accuracy.tables(ReparamConfig(), recorded({"fedrepopt": [0.094], "inf": [0.12]}, none))
    assert list(idle["who is ahead"]["fedrepopt - inf, points"]) == ["at chance"]
    awake = accuracy.tables(ReparamConfig(), recorded({"fedrepopt": [0.2], "inf": [0.12]}, none))
    assert list(awake["who is ahead"]["fedrepopt - inf, points"]) == pytest.approx([8.0])


def test_chance_is_what_guessing_passes_once_in_a_thousand():
    labels = torch.arange(10).repeat(100)
    draws = np.random.default_rng(0).binomial(1000, 0.1, 100_000) / 1000
    assert (draws > accuracy.chance(labels)).mean() == pytest.approx(1e-3, abs=8e-4)
    assert accuracy.chance(torch.tensor([0, 0, 0, 1])) > 0.75


def test_a_run_that_never_reaches_the_target_says_so(tiny):
    found = accuracy.trained(ReparamConfig(data="digits"), 0, (5, 1e5, 0.0), "inf", "formula", 1e-6)
    assert REACHED not in found
    assert SECONDS not in found
    assert found["test accuracy"] <= found[CHANCE]
