"""MPFT on Flower's messages, in one process: the bits of a loop, the second round, and what it says."""

import numpy as np
import pytest
import torch
from flwr.app import Array
from flwr.clientapp.mod import LocalDpMod, message_size_mod
from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping
from safetensors.torch import load_file
from tests.federated.grid import InProcessGrid
from tests.prototypes.clients import D
from tests.prototypes.clients import head as toy_head
from tests.prototypes.federation import (
    config_of,
    feature_file,
    loop,
    private,
    run,
    same,
    verdicts,
    ways,
)

from surefoot import Verdict
from surefoot.errors import SurefootError
from surefoot.prototypes import MPFTStrategy, make_client_app
from surefoot.prototypes.configured import mpft_task


@pytest.mark.parametrize(
    ("more", "training"),
    [
        ({"method": "cluster_var"}, {}),
        pytest.param(
            {"method": "cluster", "ratio": 0.3, "seed": 5}, {}, marks=pytest.mark.acceptance
        ),
        pytest.param({"method": "random", "ratio": 0.5}, {}, marks=pytest.mark.acceptance),
        ({"method": "gauss"}, {}),
        (
            {"method": "mean", "sampler": "additive", "steps": 20, "epochs": "auto"},
            {"sampler": "additive", "steps": 20},
        ),
    ],
    ids=lambda v: v.get("method", "") if "method" in v else "",
)
def test_a_run_is_the_loop_bit_for_bit_in_any_order_of_arrival(more, training, path):
    orders = (1, 2) if more["method"] == "cluster_var" else (3,)
    config = config_of(path, **more)
    expected = loop(config, **training)
    assert all(same(run(config, shuffle=i).state, expected) for i in orders)


def test_what_the_server_learns_of_an_open_run(path):
    strategy = run(config_of(path))
    task = mpft_task(config_of(path))
    assert strategy.delivered == [0, 1, 2]
    assert strategy.accuracy.values.shape == (1, 3)
    for p in range(3):
        from surefoot.prototypes import audit_membership, coverage

        own, other = task.records(p, 3, ()), task.held_out(p, 3, ())
        sent = strategy.sets[p]
        assert strategy.told[p]["coverage-distance"] == coverage(*own, sent).distance
        assert strategy.told[p]["audit-auc"] == audit_membership(sent, *own, *other).auc
    found = verdicts(strategy)
    assert found["G5"] in (Verdict.KEPT, Verdict.VACUOUS)
    assert found["G6"] is Verdict.KEPT
    assert found["downlink"] is Verdict.KEPT
    assert strategy.record["risk gap"].shape == (1, 3)


def test_pooled_training_is_the_same_weights_and_a_swapped_row_is_seen(path):
    config = config_of(path, method="random", ratio=1.0)
    task = mpft_task(config)
    parts = [task.records(p, 3, ()) for p in range(3)]
    feats, y = (torch.cat(each) for each in zip(*parts, strict=True))
    strategy = run(config)
    assert strategy.compare_with_pooled(feats, y) == 0
    assert verdicts(strategy)["G1"] is Verdict.KEPT

    def swapped(server_round, partition, reply):
        arrays = reply.content["arrays"]
        if partition == 1:
            for name in ("features", "labels"):
                value = arrays[name].numpy()
                arrays[name] = Array(np.ascontiguousarray(value[::-1]))
        return reply

    strategy = run(config, swapped)
    assert strategy.compare_with_pooled(feats, y) > 0
    assert verdicts(strategy)["G1"] is Verdict.BROKEN
    assert verdicts(run(config_of(path)))["G1"] is Verdict.NOT_PROMISED


def test_a_certified_run_in_float64(tmp_path):
    from tests.prototypes.clients import clients, directions

    found = clients(2, 30, torch.float64)
    path = feature_file(
        tmp_path / "f.npz", 2, 30, head=directions().double().numpy(),
        features=torch.cat([z for z, _ in found]).numpy(),
    )  # fmt: skip
    strategy = run(config_of(path, 2, method="mean", solver="certified", epochs=5))
    found = [c for c in strategy.certificates() if c.name.startswith("G4")]
    assert [c.verdict for c in found] == [Verdict.KEPT] * 2
    assert verdicts(strategy)["G6"] is Verdict.NOT_PROMISED  # eight bytes a number


def test_a_second_round_adapts_at_the_sites_and_leaves_the_global_adapter(path, tmp_path):
    from surefoot.prototypes import ResidualAdapter, adapt_locally

    one = config_of(path, method="mean")
    two = one | {
        "num-server-rounds": 2,
        "adapt-shots": 3,
        "adapt-epochs": 2,
        "site-dir": str(tmp_path),
    }
    strategy = run(two)
    assert same(strategy.state, loop(one))
    assert [r.bytes_up for r in strategy.history.rounds][1] == 0
    assert "personal-accuracy" in strategy.history.metrics[2]
    assert "personal-accuracy" not in strategy.history.metrics[1]
    start = ResidualAdapter(D)
    start.load_state_dict(strategy.state)
    task = mpft_task(two)
    personal = adapt_locally(
        start, *task.records(1, 3, ()), task.head(), epochs=2, shots=3, seed=0
    ).state_dict()
    assert same(load_file(tmp_path / "adapter-personal-1.safetensors"), personal)
    assert same(load_file(tmp_path / "adapter-global-1.safetensors"), strategy.state)
    # A private second round stays silent as well.
    silent = run(private(path, **{"num-server-rounds": 2, "adapt-shots": 3}))
    assert silent.history.metrics == {}


@pytest.mark.filterwarnings("ignore:classes .* have one record each")
@pytest.mark.filterwarnings("ignore:no client has records of classes")
def test_clients_with_other_classes_single_records_and_duplicates(tmp_path):
    z = torch.nn.functional.normalize(
        torch.randn(3, 20, D, generator=torch.Generator().manual_seed(0)), dim=2
    )
    z[1, 5:] = z[1, 5]
    labels = np.concatenate([np.arange(20) % 2, np.array([2] + [0] * 19), np.full(20, 1)])
    path = feature_file(
        tmp_path / "f.npz", 3, 20, features=z.reshape(60, D).numpy(), labels=labels
    )  # fmt: skip
    strategy = run(config_of(path))
    assert same(strategy.state, loop(config_of(path)))
    assert [sorted(s.counts) for s in strategy.sets.values()] == [[0, 1], [0, 2], [1]]
    assert strategy.record.fact("class_without_prototypes").all == (3,)


@pytest.mark.acceptance
def test_several_clients_of_a_domain_share_its_records(path):
    config = config_of(path, 6)
    task = mpft_task(config)
    sizes = [len(task.records(p, 6, ())[1]) + len(task.held_out(p, 6, ())[1]) for p in range(6)]
    assert sizes == [24] * 6
    assert same(run(config).state, loop(config))


def test_a_site_of_its_own_needs_no_domains_and_speaks_the_servers_classes(path, tmp_path):
    names = np.array(["a", "b", "c", "d"])
    server = feature_file(tmp_path / "server.npz", classes=names)
    z = np.load(server)["features"][:40]
    own = tmp_path / "own.npz"
    np.savez(own, features=z, labels=np.arange(40) % 2, encoder="toy", classes=["d", "b"])
    config = config_of(server, method="mean", epochs=1)
    app, _ = ways(config)
    grid = InProcessGrid(app, 3, config)
    for context in grid.contexts.values():
        if context.node_config["partition-id"] == 1:
            context.node_config["data-path"] = str(own)
    strategy = run(config, grid=grid)
    assert sorted(strategy.sets[1].counts) == [1, 3]
    np.savez(own, features=z, labels=np.arange(40) % 2, encoder="toy", classes=["d", "z"])
    with pytest.raises(SurefootError, match=r"has classes \['z'\] that the server does not know"):
        run(config, grid=grid)
    np.savez(own, features=z, labels=np.arange(40) % 2, encoder="toy")
    with pytest.raises(SurefootError, match="labels would mean something else"):
        run(config, grid=grid)
    np.savez(own, features=z, labels=np.arange(40) % 2, encoder="toy")
    # The same file at every partition would be the same records many times.
    with pytest.raises(SurefootError, match="every partition would have the same records"):
        run(config_of(own, method="mean", **{"head-path": str(path)}))


def test_rounds_are_one_or_two(path):
    app, strategy = ways(config_of(path))
    with pytest.raises(ValueError, match="num_rounds must be 1 with adapt_shots = 0, got 3"):
        strategy.start(InProcessGrid(app, 3), strategy.initial_arrays(), num_rounds=3)
    with pytest.raises(ValueError, match="num_rounds must be 1"):
        strategy.start(InProcessGrid(app, 3), strategy.initial_arrays(), 3)


def test_mods_and_wrappers_for_updates_of_models(path):
    with pytest.raises(ValueError, match="LocalDpMod.*privacy is the run's epsilon"):
        make_client_app(mpft_task, mods=[LocalDpMod(1.0, 1.0, 1.0, 1e-5)])
    make_client_app(mpft_task, mods=[message_size_mod])
    config = config_of(path)
    app, strategy = ways(config)
    around = DifferentialPrivacyServerSideFixedClipping(strategy, 1.0, 1.0, 3)
    with pytest.raises(SurefootError, match="MPFTStrategy must be started itself"):
        around.start(InProcessGrid(app, 3, config), strategy.initial_arrays(), num_rounds=1)


def arrays_of(reply):
    return reply.content["arrays"]


def test_an_upload_with_other_bytes_breaks_the_communication_certificate(path):
    def padded(server_round, partition, reply):
        if partition == 0:
            import io

            stream = io.BytesIO()
            np.lib.format.write_array_header_2_0(
                stream, {"descr": "<f4", "fortran_order": False, "shape": (4, D)}
            )
            value = arrays_of(reply)["features"].numpy()
            raw = stream.getvalue()
            longer = (
                raw[:8]
                + (len(raw) - 12 + 64).to_bytes(4, "little")
                + raw[12:-1]
                + b" " * 64
                + b"\n"
            )
            data = longer + value.tobytes()
            arrays_of(reply)["features"] = Array("float32", (4, D), "numpy.ndarray", data)
        return reply

    config = config_of(path, method="mean", epochs=1)
    assert verdicts(run(config))["G6"] is Verdict.KEPT
    assert verdicts(run(config, padded))["G6"] is Verdict.BROKEN


def test_a_lying_coverage_bound_is_seen(path, monkeypatch):
    from surefoot.prototypes.covering import Coverage

    monkeypatch.setattr(Coverage, "bound", lambda self, adapter, head: 0.0)
    assert verdicts(run(config_of(path, method="mean", epochs=1)))["G5"] is Verdict.BROKEN


@pytest.mark.parametrize("name", ["evaluate", "early_stop", "residual"])
def test_a_word_is_no_switch(name):
    """ "false" would ask for accuracies."""
    with pytest.raises(ValueError, match=f"{name} must be True or False"):
        MPFTStrategy(toy_head(), 3, method="mean", sampler="additive", **{name: "false"})
