import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from surefoot.federated import (
    ServerRule,
    domain_partition,
    draw_partitions,
    from_arrays,
    lda_partition,
    to_arrays,
    weighted_mean,
    wire_bytes,
)
from surefoot.federated.partition import seed_for


def state():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    found = {k: v.clone() for k, v in model.state_dict().items()}
    found["double"] = torch.randn(3, dtype=torch.float64)
    found["half"] = torch.randn(2).half()
    found["flag"] = torch.tensor([True, False])
    found["empty"] = torch.zeros(0, 4)
    return found


def test_there_and_back_bit_for_bit():
    before = state()
    after = from_arrays(to_arrays(before), before)
    assert list(after) == list(before)
    assert all(torch.equal(after[k], v) and after[k].dtype == v.dtype for k, v in before.items())
    after["double"].add_(1)


def test_what_does_not_fit_is_named():
    good = state()
    for change, error, match in (
        (lambda r: r.pop("half"), KeyError, r"missing \['half'\]"),
        (lambda r: r.update(more=Array(np.zeros(1))), KeyError, r"extra \['more'\]"),
        (
            lambda r: r.update(double=Array(np.zeros(4))),
            ValueError,
            r"double: float64\[4\] in place of float64\[3\]",
        ),
        (lambda r: r.update(double=Array(np.zeros(3, np.float32))), ValueError, "double: float32"),
    ):
        record = to_arrays(good)
        change(record)
        with pytest.raises(error, match=match):
            from_arrays(record, good)
    with pytest.raises(TypeError, match="w is bfloat16"):
        to_arrays({"w": torch.zeros(1, dtype=torch.bfloat16)})


def test_bytes_are_those_that_travel():
    record = ArrayRecord({"a": Array(np.zeros(100, np.float32))})
    assert 400 <= wire_bytes(record) <= 400 + 128


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.integers(1, 50)), min_size=1, max_size=6),
    st.randoms(),
)
def test_mean_does_not_depend_on_arrival(pairs, random):
    replies = {
        p: ({"w": torch.tensor([v], dtype=torch.float32), "n": torch.tensor(p)}, n)
        for p, (v, n) in enumerate(pairs)
    }
    shuffled = list(replies.items())
    random.shuffle(shuffled)
    mean, again = weighted_mean(replies), weighted_mean(dict(shuffled))
    assert torch.equal(mean["w"], again["w"])
    expected = np.average([np.float32(v) for v, _ in pairs], weights=[n for _, n in pairs])
    assert mean["w"].item() == pytest.approx(expected, rel=1e-6, abs=1e-4)
    assert mean["n"] == len(pairs) - 1
    assert mean["n"].dtype == torch.int64


def test_no_mean_of_nothing():
    with pytest.raises(ValueError, match="nothing to average"):
        weighted_mean({})
    with pytest.raises(ValueError, match="positive"):
        weighted_mean({0: ({"w": torch.zeros(1)}, 0)})


@given(
    st.integers(1, 200),
    st.integers(1, 12),
    st.sampled_from([0.01, 0.1, 1.0, 1e5]),
    st.integers(0, 99),
)
def test_lda_is_a_partition(n, parts, alpha, seed):
    labels = np.random.default_rng(seed).integers(0, 5, n)
    found = lda_partition(labels, parts, alpha, seed)
    assert len(found) == parts
    assert sorted(np.concatenate(found).tolist()) == list(range(n))
    again = lda_partition(labels, parts, alpha, seed)
    assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


def test_alpha_is_the_concentration():
    """Shares are Dir(alpha): mean 1/K, variance (1/K)(1 - 1/K)/(K alpha + 1), over many classes."""
    labels = np.repeat(np.arange(400), 200)
    for alpha in (0.1, 1.0, 1e5):
        parts = lda_partition(labels, 4, alpha, 0)
        shares = np.array([np.bincount(labels[p], minlength=400) for p in parts]) / 200
        assert shares.mean() == pytest.approx(0.25)
        assert shares.var() == pytest.approx(0.25 * 0.75 / (4 * alpha + 1), rel=0.15, abs=1e-5)


def test_domains():
    domains = np.array(list("aabbccab") * 4)
    three = domain_partition(domains, 3)
    assert [set(domains[p]) for p in three] == [{"a"}, {"b"}, {"c"}]
    six = domain_partition(domains, 6)
    assert sorted(np.concatenate(six).tolist()) == list(range(32))
    assert [len(set(domains[p])) for p in six] == [1] * 6
    with pytest.raises(ValueError, match="3 domains"):
        domain_partition(domains, 2)


def test_draws_depend_on_seed_and_round_alone():
    assert draw_partitions(0, 1, range(10), 0.5) == draw_partitions(0, 1, range(9, -1, -1), 0.5)
    draws = {tuple(draw_partitions(0, r, range(10), 0.5)) for r in range(20)}
    assert len(draws) > 10
    assert all(len(d) == 5 for d in draws)
    assert draw_partitions(3, 1, range(4), 1.0) == [0, 1, 2, 3]
    assert draw_partitions(3, 1, range(4), 0.01) != []
    assert seed_for(1, 2, 3) != seed_for(1, 23)
    assert 0 <= seed_for("a") < 2**63
    for bad in (0.0, 1.5):
        with pytest.raises(ValueError, match="fraction"):
            draw_partitions(0, 1, range(4), bad)
    for bad in ((np.zeros(3, int), 0, 1.0), (np.zeros(3, int), 2, 0.0)):
        with pytest.raises(ValueError):
            lda_partition(*bad)


def test_server_rules_by_hand():
    old, mean = (
        {"w": torch.tensor([1.0]), "n": torch.tensor(3)},
        {"w": torch.tensor([2.0]), "n": torch.tensor(4)},
    )
    assert ServerRule().apply(old, mean)["w"] == 2
    assert ServerRule("fedavg", 0.5).apply(old, mean)["w"] == 1.5
    heavy = ServerRule("fedavgm", 1.0, momentum=0.5)
    assert heavy.apply(old, mean)["w"] == 2
    assert heavy.apply({"w": torch.tensor([2.0])}, {"w": torch.tensor([3.0])})["w"] == 3.5
    adam = ServerRule("fedadam", 0.1).apply(old, mean)
    assert adam["w"].item() == pytest.approx(1 + 0.1 * 0.1 / (0.01**0.5 + 1e-3), rel=1e-6)
    assert adam["n"] == 4
    for bad in ({"rule": "gossip"}, {"lr": 0.0}, {"momentum": 1.0}):
        with pytest.raises(ValueError):
            ServerRule(**bad)


def test_a_header_that_claims_more_than_is_there_takes_no_memory():
    """NumPy makes room first: a few bytes of a client could end a run."""
    record = to_arrays({"w": torch.ones(3)})
    data = record["w"].data.replace(b"(3,), }             ", b"(5000000000000,), }  ")
    record["w"] = Array("float32", (3,), "numpy.ndarray", data)
    with pytest.raises(ValueError, match="w claims float32 of shape .* damaged or forged"):
        from_arrays(record, {"w": torch.ones(3)})
