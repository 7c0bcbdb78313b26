"""The study's parts at their smallest: what they record, and what their guarantees say of it."""

import copy

import numpy as np
import pytest

from surefoot.certificate import certify
from surefoot.guarantee import Verdict
from surefoot.lora.experiments import (
    counterexample,
    digits_net,
    drift,
    encoder,
    memory,
    mnist_net,
    regression,
)
from surefoot.lora.experiments.nets import Budget, adapt
from surefoot.lora.study import STUDY, LoraConfig
from surefoot.record import Record

CONFIG = LoraConfig()


def test_the_counterexample(monkeypatch):
    monkeypatch.setattr(counterexample, "STEPS", {"quick": {20: 100, 200: 100}})
    record = Record()
    counterexample.run(CONFIG, 0, record)
    for guarantee in counterexample.guarantees(CONFIG):
        assert certify(record, guarantee).verdict is Verdict.KEPT, guarantee.name
    table = counterexample.tables(CONFIG, record)["relative gap at the end"]
    gaps = table.set_index(["method", "step"])["relative gap, median"]
    assert np.isinf(gaps["LoRA", "1/20"])
    assert gaps["GD", "1/20"] < 1e-4
    assert gaps["RAC-LoRA", "1/20"] < 0.1 < gaps["AsymmLoRA", "1/20"]


@pytest.mark.acceptance
def test_divergence_depends_on_the_scale():
    record = Record()
    for seed in (0, 1):
        counterexample.run_divergence(CONFIG, seed, record)
    (table,) = counterexample.divergence_tables(CONFIG, record).values()
    assert table.set_index("b")["LoRA diverges"]["10 N(0, I)"] == 1.0


def test_regression_parts_are_certified(monkeypatch):
    for name in ("BLOCKS", "DIGIT_BLOCKS"):
        monkeypatch.setattr(regression, name, {"quick": 64})
    record = Record()
    for seed in range(5):
        regression.run_digits(CONFIG, seed, record)
    for guarantee in regression.digits_guarantees(CONFIG):
        assert certify(record, guarantee).verdict is Verdict.KEPT, guarantee.name
    (table,) = regression.digits_tables(CONFIG, record).values()
    assert table["blocks"].tolist() == [16, 4]


def test_merges_with_a_residual_keep_their_bound_and_plain_ones_break_it():
    record = Record()
    drift.run(CONFIG, 0, record)
    for q in (1e-1, 1e-2, 1e-3):
        assert certify(record, drift.residual_guarantee(q)).verdict is Verdict.KEPT
        # The planted fault: the same merges without the residual.
        for arm in ("PEFT's merge", "stochastic rounding"):
            broken = drift.residual_guarantee(q, f"{arm}, q = {q:g}")
            assert certify(record, broken).verdict is Verdict.BROKEN
    assert certify(record, drift.residual_guarantee(1e-4)).verdict is Verdict.VACUOUS
    (table,) = drift.tables(CONFIG, record).values()
    assert table["size of a block"].tolist() == ["0.1", "0.01", "0.001", "0.0001"]


def test_memory(measured):
    record = Record()
    memory.run(CONFIG, 0, record)
    (table,) = memory.tables(CONFIG, record).values()
    table = table.set_index("method")
    share = table["of LoRA's"]["RAC-LoRA, train B"]
    measured("saved activations, train B / LoRA", "<= 0.75", f"{share:.3f}")
    assert share <= 0.75
    assert table["of LoRA's"]["RAC-LoRA, train A"] > 0.9
    # Square layers and their transposed pairs: half of LoRA's numbers exactly.
    moments = table["Adam's moments, MB"]
    measured(
        "Adam's moments, train B / LoRA", "0.5",
        f"{moments['RAC-LoRA, train B'] / moments['LoRA']:.3f}",
    )  # fmt: skip
    assert moments["RAC-LoRA, train B"] == pytest.approx(0.5 * moments["LoRA"])


@pytest.mark.parametrize("method", ["rac_lora", "asymm_lora", "lora", "cola", "fpft"])
@pytest.mark.acceptance
def test_the_net_of_table_three(method):
    _, task = digits_net.digits()
    start = digits_net.pretrained()
    found = adapt(copy.deepcopy(start), task, method, "B", Budget(epochs=2, blocks=2), 0)
    again = adapt(copy.deepcopy(start), task, method, "B", Budget(epochs=2, blocks=2), 0)
    assert found == again
    trained = {"rac_lora": 133, "asymm_lora": 133, "lora": 325, "cola": 325, "fpft": 8512}
    assert found.trainable == trained[method]


def test_mnist_by_local_path(tmp_path, monkeypatch):
    """Numbers of Table 3: 1045 for both factors, 133 for B, 912 for A."""
    task = digits_net.digits()
    padded = [
        type(t)(*(type(s)(s.x.new_zeros(len(s.y), 784), s.y) for s in (t.train, t.val, t.test)))
        for t in task
    ]
    monkeypatch.setattr(mnist_net, "mnist", lambda path: tuple(padded))
    mnist_net.pretrained.cache_clear()
    record = Record()
    mnist_net.run(CONFIG, 0, record)
    mnist_net.pretrained.cache_clear()
    (table,) = mnist_net.tables(CONFIG, record).values()
    numbers = table.set_index("method")["trainable numbers"]
    assert numbers["lora, train B"] == 1045
    assert numbers["rac_lora, train B"] == 133
    assert numbers["rac_lora, train A"] == 912


def test_parts_and_sizes():
    names = [part.name for part in STUDY.chosen(LoraConfig(size="standard"))]
    assert names == [
        "counterexample", "divergence", "ridge", "noise", "digits", "digits-net", "drift", "memory",
        "mnist", "federated", "encoder",
    ]  # fmt: skip
    quick = [part.name for part in STUDY.chosen(LoraConfig())]
    assert "encoder" not in quick
    assert {m for _, m, _ in encoder.ARMS} == {"fpft", "lora", "cola", "asymm_lora", "rac_lora"}
