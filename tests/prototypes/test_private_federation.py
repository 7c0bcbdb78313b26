"""Private uploads in a federation: what else is said, the ledger, the dry run."""

import json

import numpy as np
import pytest
import torch
from tests.federated.grid import InProcessGrid
from tests.prototypes.clients import D
from tests.prototypes.federation import (
    config_of,
    private,
    run,
    uploads,
    verdicts,
    ways,
)

from surefoot import Verdict
from surefoot.errors import SurefootError
from surefoot.prototypes import (
    GaussianRelease,
    PrototypeSet,
    extract_prototypes,
    gaussian_epsilon,
)
from surefoot.prototypes.configured import mpft_task


def test_a_private_run_says_nothing_else_and_is_never_the_same(path):
    strategies = [run(private(path)) for _ in range(2)]
    a, b = (s.sets[0].features for s in strategies)
    assert not torch.equal(a, b)
    for s in strategies:
        assert s.told == {0: {}, 1: {}, 2: {}}
        assert s.accuracy is None
        assert s.history.metrics == {}
        assert s.delivered == [0, 1, 2]
        assert verdicts(s)["G2"] is Verdict.KEPT
    exact = uploads(config_of(path, method="mean"), dp=GaussianRelease(np.inf, 1e-5))
    sent = torch.cat(
        [s.features - e.features for s, e in zip(strategies[0].sets.values(), exact, strict=True)]
    )
    counts = torch.tensor([n for e in exact for n in e.counts.values()])
    sigma = GaussianRelease(4.0, 1e-5).nu * 2 / counts
    standard = float((sent / sigma[:, None]).double().std())
    assert abs(standard - 1) < 6 * (2 * 12 * D) ** -0.5


def test_one_thousand_steps_unless_told(path):
    assert ways(private(path, steps="auto"))[1].training["steps"] == 1000
    assert ways(private(path, steps="auto", epochs=7))[1].training["steps"] is None
    assert ways(config_of(path))[1].training["steps"] is None


def test_accuracies_beside_a_private_upload_are_said_and_end_the_promise(path):
    strategy = run(private(path, evaluate=True))
    assert strategy.accuracy is not None
    assert "accuracies" in strategy.record.fact("beside").all[-1]
    assert verdicts(strategy)["G2"] is Verdict.NOT_PROMISED
    # No coverage even so: that was not asked for.
    assert "risk gap" not in strategy.record


def test_a_client_that_adds_too_little_noise_breaks_its_promise(path):
    def weak(server_round, partition, reply):
        if partition == 2:
            numbers = reply.content["metrics"]
            numbers["noise-multipliers"] = [v / 2 for v in numbers["noise-multipliers"]]
        return reply

    assert verdicts(run(private(path), weak))["G2"] is Verdict.BROKEN

    def silent(server_round, partition, reply):
        if partition == 2:
            del reply.content["facts"]
        return reply

    assert verdicts(run(private(path), silent))["G2"] is Verdict.NOT_PROMISED

    def mute(server_round, partition, reply):
        if partition == 2:
            del reply.content["metrics"]["noise-multipliers"]
        return reply

    strategy = run(private(path, **{"min-clients": 2}), mute)
    assert "noise-multipliers must be 4 numbers" in strategy.history.rounds[0].rejected[2]


def test_the_ledger_of_a_node_survives_the_server_and_refuses(path):
    config = private(path)
    app, _ = ways(config)
    grid = InProcessGrid(app, 3, config)
    run(config, grid=grid)
    with pytest.raises(SurefootError, match=r"above max_epsilon 4 \(4 spent before\)"):
        run(config, grid=grid)
    run(config | {"max-epsilon": 6.5}, grid=grid)
    with pytest.raises(SurefootError, match=r"above max_epsilon 6.5"):
        run(config | {"max-epsilon": 6.5}, grid=grid)


def test_the_ledger_of_a_site_survives_its_nodes_and_must_be_whole(path, tmp_path):
    config = private(path, **{"site-dir": str(tmp_path)})
    run(config)
    kept = json.loads((tmp_path / "ledger-0.json").read_text())
    assert kept["epsilon"] == pytest.approx(4.0, abs=1e-6)
    with pytest.raises(SurefootError, match=r"above max_epsilon 4 \(4 spent before\)"):
        run(config)
    assert json.loads((tmp_path / "ledger-0.json").read_text()) == kept
    (tmp_path / "ledger-1.json").write_text('{"mu_squared": -1}')
    with pytest.raises(SurefootError, match=r"ledger-1.json is damaged .* nothing is released"):
        run(config | {"max-epsilon": 20.0})


@pytest.mark.acceptance
def test_three_releases_and_one_too_many(path, tmp_path):
    """8.15: nu = 2 three times is epsilon 3.708635."""
    one = gaussian_epsilon(2.0, 1e-5)
    config = private(path, **{"site-dir": str(tmp_path), "epsilon": one, "max-epsilon": 3.7087})
    for _ in range(3):
        run(config)
    spent = json.loads((tmp_path / "ledger-0.json").read_text())["epsilon"]
    assert spent == pytest.approx(3.708635, abs=1e-5)
    with pytest.raises(SurefootError, match=r"would bring epsilon to 4\.\d+ .* it is refused"):
        run(config)


def test_what_left_without_noise_ends_all_promises(path, tmp_path):
    run(config_of(path, method="mean", **{"site-dir": str(tmp_path)}))
    assert json.loads((tmp_path / "ledger-0.json").read_text())["epsilon"] == "inf"
    with pytest.raises(SurefootError, match=r"epsilon to inf .*inf spent before"):
        run(private(path, **{"site-dir": str(tmp_path)}))


def test_a_site_with_a_limit_sends_nothing_without_noise_and_nobody_raises_it(path):
    config = config_of(path, method="mean")
    app, _ = ways(config)

    def grid_of(limit):
        grid = InProcessGrid(app, 3, config)
        for context in grid.contexts.values():
            context.node_config["max-epsilon"] = limit
        return grid

    with pytest.raises(
        SurefootError, match="releases nothing beyond max-epsilon 2, and the run asks"
    ):
        run(config, grid=grid_of(2.0))
    with pytest.raises(SurefootError, match="above max_epsilon 2"):
        run(private(path, **{"max-epsilon": 10.0}), grid=grid_of(2.0))
    run(private(path), grid=grid_of(4.0))


def test_a_dry_run_sends_nothing_and_the_inspected_file_is_what_leaves(path, tmp_path):
    config = private(path, **{"site-dir": str(tmp_path)})
    sent = []

    def watched(server_round, partition, reply):
        sent.append(reply.content)
        return reply

    with pytest.raises(
        SurefootError, match=r"dry run, nothing was sent.*partition 2: .*upload-2.npz"
    ):
        run(config | {"dry-run": True}, watched)
    assert all(not c.array_records for c in sent)
    assert not list(tmp_path.glob("ledger*.json"))
    strategy = run(config | {"send-inspected": True})
    for p in range(3):
        kept = PrototypeSet.load(tmp_path / f"upload-{p}.npz")
        assert torch.equal(kept.features, strategy.sets[p].features)
    assert verdicts(strategy)["G2"] is Verdict.KEPT
    # Another privacy than was inspected.
    with pytest.raises(SurefootError, match=r"do the dry run again"):
        run(config | {"send-inspected": True, "epsilon": 2.0, "max-epsilon": 100.0})
    # Another file than the notes speak of.
    made = extract_prototypes(
        *mpft_task(config).records(0, 3, ()),
        "mean",
        dp=GaussianRelease(4.0, 1e-5),
        encoder_id="toy",
    )
    for p in range(3):
        made.save(tmp_path / f"upload-{p}.npz")
    with pytest.raises(SurefootError, match=r"does not belong to the upload beside it"):
        run(config | {"send-inspected": True, "max-epsilon": 100.0})


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"dry-run": True}, "dry-run writes the upload into site-dir"),
        ({"send-inspected": True}, "send-inspected sends the upload in site-dir"),
        ({"site-dir": "/nowhere"}, "site-dir must be a folder that exists"),
        ({"dry-run": "yes"}, "dry-run must be true or false"),
    ],
)
def test_a_site_without_its_folder(more, said, path):
    with pytest.raises(SurefootError, match=said):
        run(config_of(path, method="mean", epochs=1, **more))
