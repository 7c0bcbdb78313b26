"""Uploads that do not fit, clients that fail, are late or never come: named, and the run goes on."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord
from tests.federated.grid import InProcessGrid
from tests.prototypes.clients import head as toy_head
from tests.prototypes.federation import (
    config_of,
    loop,
    run,
    same,
    uploads,
    ways,
)

from surefoot.errors import SurefootError
from surefoot.federated import MissingNodesError
from surefoot.prototypes import (
    MPFTStrategy,
)


def arrays_of(reply):
    return reply.content["arrays"]


def put(name, change):
    def fault(reply):
        value = np.array(arrays_of(reply)[name].numpy())
        arrays_of(reply)[name] = Array(np.ascontiguousarray(change(value)))

    return fault


def say(name, value):
    def fault(reply):
        reply.content["about"][name] = value

    return fault


def nan(value):
    value[0, 0] = np.nan
    return value


def first(number):
    def change(value):
        value[0] = number
        return value

    return change


def forged(reply):
    """A header that asks for forty terabytes, and no number behind it."""
    head = b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999999, 1), }"
    body = head + b" " * (117 - len(head)) + b"\n"
    data = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + body
    arrays_of(reply)["features"] = Array("float32", (4, 16), "numpy.ndarray", data)


def without(name):
    def fault(reply):
        del arrays_of(reply)[name]

    return fault


def wrong_partition(reply):
    reply.content["metrics"]["partition-id"] = 2


FAULTS = {
    "NaN": (put("features", nan), "features must be finite"),
    "another dimension": (put("features", lambda v: v[:, :8]), "dimension is 8, asked for was 16"),
    "another encoder": (say("encoder", "other"), "encoder is other, asked for was toy"),
    "another method": (say("method", "cluster"), "method is cluster, asked for was mean"),
    "an unknown method": (say("method", "magic"), "method"),
    "another ratio": (say("ratio", 0.5), "ratio is 0.5"),
    "another format": (say("format", 2), "format must be 1"),
    "words for numbers": (say("ratio", "all"), "ratio must be"),
    "half a release": (say("epsilon", 4.0), "a release has epsilon, delta, clip"),
    "16 bits": (put("features", lambda v: v.astype(np.float16)), "features must be float32 or"),
    "64 bits": (put("features", lambda v: v.astype(np.float64)), "dtype is torch.float64"),
    "labels of 32 bits": (put("labels", lambda v: v.astype(np.int32)), "labels must be int64"),
    "labels as floats": (put("labels", lambda v: v.astype(np.float64)), "labels must be int64"),
    "words": (put("features", lambda v: v.astype("U4")), "plain real numbers"),
    "ragged": (put("labels", lambda v: v[:-1]), "counts must be one for each"),
    "ragged weights": (put("weights", lambda v: v[:-1]), r"weights must be \(4,\)"),
    "flat features": (
        put("features", lambda v: v.ravel()),
        "features must be float32 or float64 of 2",
    ),
    "no rows": (put("features", lambda v: v[:0]), "features must be"),
    "a class beyond the head": (put("labels", lambda v: v + 1), "labels must be below 4"),
    "a negative class": (
        put("labels", lambda v: v - 1),
        "labels must be whole numbers of at least 0",
    ),
    "a class twice": (put("labels", first(1)), "counts must be one for each of the 3"),
    "huge counts": (put("counts", lambda v: v * 10**12), "weights of class 0 must sum"),
    "a count of 0": (put("counts", first(0)), "weights of class 0 must sum"),
    "negative weights": (put("weights", lambda v: -v), "weights must be above 0"),
    "infinite weights": (put("weights", first(np.inf)), "weights must be finite"),
    "a long row": (put("features", lambda v: v * 1e30), "norms up to"),
    "a forged header": (forged, "damaged or forged"),
    "no labels": (without("labels"), r"missing \['labels'\]"),
    "another partition": (wrong_partition, "claims partition 2, it is partition 1"),
}


@pytest.fixture(scope="module")
def of_two(path):
    """The bits of a run without partition 1."""
    config = config_of(path, method="mean", epochs=1)
    sets = uploads(config)
    return loop(config, [sets[0], sets[2]])


@pytest.fixture(scope="module")
def server(path):
    """A strategy, and the honest upload of partition 1."""
    config = config_of(path, method="mean")
    return ways(config)[1], uploads(config)[1]


def arrived(protos, partition=1):
    """An upload as a reply has it."""
    content = protos.to_record()
    examples = sum(protos.counts.values())
    content["metrics"] = MetricRecord({"num-examples": examples, "partition-id": partition})
    return SimpleNamespace(content=content)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", FAULTS)
def test_an_upload_that_does_not_fit_is_refused(name, server):
    strategy, protos = server
    fault, reason = FAULTS[name]
    reply = arrived(protos)
    strategy._content(1, reply, 1)
    fault(reply)
    with pytest.raises(ValueError, match=reason):
        strategy._content(1, reply, 1)


@pytest.mark.parametrize("name", ["NaN", "another encoder", "a forged header", "another partition"])
def test_it_is_dropped_by_name_and_the_run_goes_on(name, path, of_two):
    fault, reason = FAULTS[name]

    def planted(server_round, partition, reply):
        if partition == 1:
            fault(reply)
        return reply

    config = config_of(path, method="mean", epochs=1, evaluate=False, **{"min-clients": 2})
    strategy = run(config, planted)
    rejected = strategy.history.rounds[0].rejected
    assert list(rejected) == [1]
    assert re.search(reason, rejected[1]), rejected[1]
    assert strategy.history.rounds[0].partitions == [0, 2]
    assert same(strategy.state, of_two)
    assert strategy.delivered == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"sampling": [[1]]}', "facts of a reply must be lists of"),
        ("[" * 20_000, "JSON of at most"),
        ("[" * 9_000, "nested too deeply|must be lists of"),
        ('{"weighting": [1e999]}', "facts of a reply must be lists of"),
    ],
)
def test_an_upload_whose_facts_are_refused_is_not_trained_on(text, reason, path, of_two):
    """The upload itself was read before its facts were."""

    def planted(server_round, partition, reply):
        if partition == 1 and server_round == 1:
            reply.content["facts"] = ConfigRecord({"json": text})
        return reply

    config = config_of(path, method="mean", epochs=1, evaluate=False, **{"min-clients": 2})
    strategy = run(config, planted)
    assert re.search(reason, strategy.history.rounds[0].rejected[1])
    assert sorted(strategy.sets) == strategy.history.rounds[0].partitions == [0, 2]
    assert same(strategy.state, of_two)


def test_claims_of_many_records(path):
    def planted(server_round, partition, reply):
        if partition == 0:
            put("counts", lambda v: v * 0 + 10**7)(reply)
            put("weights", lambda v: v * 0 + 1e7)(reply)
            reply.content["metrics"]["num-examples"] = 4 * 10**7
        return reply

    strategy = run(config_of(path, method="mean", epochs=1, **{"min-clients": 2}), planted)
    assert (
        "claim 40,000,000 records, allowed are 1,000,000" in strategy.history.rounds[0].rejected[0]
    )


def test_too_few_good_uploads_end_the_run_with_the_reasons(path):
    def planted(server_round, partition, reply):
        if partition == 1:
            return "the scanner is down"
        if partition == 2:
            put("features", nan)(reply)
        return reply

    with pytest.raises(
        SurefootError,
        match=r"(?s)1 good uploads of 3, min_clients is 2; partition 1.*down.*partition 2.*finite",
    ):
        run(config_of(path, method="mean", **{"min-clients": 2}), planted)


def test_a_late_client_is_named_and_one_that_never_came_too(path):
    config = config_of(path, method="mean", epochs=1, **{"min-clients": 2})
    strategy = run(config, lambda r, p, reply: None if p == 0 else reply)
    assert "no reply within" in strategy.history.rounds[0].lost[0]
    assert strategy.history.rounds[0].partitions == [1, 2]
    app, _ = ways(config)
    grid = InProcessGrid(app, 3)
    grid.offline = {1}
    with pytest.raises(MissingNodesError, match=r"partitions \[1\] are not online"):
        run(config, grid=grid)


def test_encoders_that_nobody_named(path):
    """Without an encoder_id that of most clients counts; a tie is an error."""

    def strategy_of(count, least):
        return MPFTStrategy(toy_head(), count, least, 0.0, 1, method="mean")

    def go(other):
        config = config_of(path, method="mean")
        app, _ = ways(config)

        def fault(server_round, partition, reply):
            if partition in other:
                reply.content["about"]["encoder"] = "older"
            return reply

        grid = InProcessGrid(app, 3, config, 0, fault)
        strategy = strategy_of(3, 2)
        strategy.start(grid, strategy.initial_arrays(), num_rounds=1)
        return strategy

    assert "'older', that of most is 'toy'" in go({2}).history.rounds[0].rejected[2]
    assert "'toy', that of most is 'older'" in go({1, 2}).history.rounds[0].rejected[0]


def test_a_client_refuses_another_encoder_itself(path):
    config = config_of(path, method="mean")
    app, _ = ways(config)
    strategy = MPFTStrategy(toy_head(), 3, 1, 0.0, 1, method="mean", encoder_id="newer")
    with pytest.raises(
        SurefootError, match=r"this site's encoder is 'toy', the server's is 'newer'"
    ):
        strategy.start(InProcessGrid(app, 3, config), strategy.initial_arrays(), num_rounds=1)
