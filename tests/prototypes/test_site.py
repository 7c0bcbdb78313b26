"""What a site holds back: words of its records, accuracies under a limit, releases that nobody counted."""

import contextlib
import json
import math
import zipfile

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord
from tests.federated.grid import InProcessGrid
from tests.prototypes.federation import config_of, feature_file, private, run, same, ways

from surefoot.errors import SurefootError
from surefoot.prototypes import GaussianRelease, PrototypeSet, gaussian_epsilon
from surefoot.prototypes.configured import mpft_task
from surefoot.prototypes.doors.app import KEYS, mpft_client_app
from surefoot.prototypes.doors.keys import OF_NODE


def nodes(config, app=None, only=None, **node):
    """A grid whose nodes, or one of them, have more in their configuration."""
    grid = InProcessGrid(app or ways(config)[0], config["num-partitions"], config)
    for context in grid.contexts.values():
        if only in (None, context.node_config["partition-id"]):
            context.node_config.update(node)
    return grid


# ------------------------------------------------------------------ words

SECRET = "patient 17"


class Talkative:
    """A task whose records make whatever reads them speak of them."""

    encoder_id, classes = "toy", ()

    def __init__(self, inner, where):
        self.inner, self.where = inner, where

    def head(self):
        return self.inner.head()

    def records(self, *which):
        z, y = self.inner.records(*which)
        if self.where == "records":
            raise ValueError(f"{SECRET} has no diagnosis")
        if self.where == "labels":
            y = np.array([SECRET] * len(y))
        return z, y

    def held_out(self, *which):
        if self.where == "held out":
            raise KeyError(SECRET)
        return self.inner.held_out(*which)


@pytest.mark.parametrize(
    ("where", "more"),
    [
        ("task", {}),
        ("records", {}),
        ("labels", {}),
        ("held out", {"epsilon": "none", "steps": "auto", "epochs": 1}),
    ],
)
def test_no_word_of_a_record_reaches_the_server(where, more, path):
    """Flower sends the text of an error to the server."""
    config = private(path, **more)

    def make(given):
        if where == "task":
            raise ValueError(f"row 3 is not a number: {SECRET}")
        return Talkative(mpft_task(given), where)

    with pytest.raises(SurefootError, match=r"of partition 0 cannot be used \((\w+)\)") as error:
        run(config, grid=nodes(config, mpft_client_app(make)))
    assert SECRET not in str(error.value)


def test_records_that_are_not_finite_are_refused_without_their_numbers(path, tmp_path):
    z = np.load(path)["features"].copy()
    z[0, 0] = -math.inf
    config = private(feature_file(tmp_path / "f.npz", features=z), **{"min-clients": 2})
    strategy = run(config)
    (reason,) = strategy.history.rounds[0].lost.values()
    assert "the records of partition 0 cannot be used (ArgumentError)" in reason
    assert "inf" not in reason


# ------------------------------------------------------------------ limits


def test_a_limit_is_not_raised_by_a_large_delta(path):
    """Every epsilon is small at a large delta: the site's limit is one at 1e-5 unless it says otherwise."""
    config = private(path, epsilon=1.0, delta=0.9)
    assert gaussian_epsilon(GaussianRelease(1.0, 0.9).nu, 1e-5) > 20
    with pytest.raises(SurefootError, match=r"at delta 1e-05, above max_epsilon 1 "):
        run(config, grid=nodes(config, **{"max-epsilon": 1.0}))
    # The run cannot loosen what the site says, and may tighten it.
    with pytest.raises(SurefootError, match=r"at delta 1e-06, above max_epsilon 4 "):
        run(
            private(path, **{"max-epsilon": 50.0, "max-delta": 0.5}),
            grid=nodes(private(path), **{"max-epsilon": 4.0, "max-delta": 1e-6}),
        )
    run(
        private(path, delta=1e-3),
        grid=nodes(private(path), **{"max-epsilon": 4.0, "max-delta": 1e-3}),
    )


def test_a_limit_without_a_delta_is_not_loosened_by_that_of_the_run(path):
    """It was stated at 1e-5, said or not."""
    config = private(path, epsilon=1.0, delta=0.9, **{"max-epsilon": 50.0, "max-delta": 0.9})
    with pytest.raises(SurefootError, match=r"at delta 1e-05, above max_epsilon 1 "):
        run(config, grid=nodes(config, **{"max-epsilon": 1.0}))


def test_a_delta_without_a_limit_is_refused(path):
    """The release was at the run's own delta, whatever the site said."""
    config = private(path, epsilon=1.0, delta=0.9)
    with pytest.raises(SurefootError, match="max-delta = 1e-06 in the node's .* limits nothing"):
        run(config, grid=nodes(config, **{"max-delta": 1e-6}))
    strict = config | {"max-epsilon": 1.0}
    with pytest.raises(SurefootError, match="at delta 1e-06, above max_epsilon 1 "):
        run(strict, grid=nodes(strict, **{"max-delta": 1e-6}))


def test_a_site_with_a_limit_keeps_its_accuracies(path):
    """They depend on the records, and no ledger counts them."""
    config = private(path, evaluate=True)
    strategy = run(config, grid=nodes(config, only=1, **{"max-epsilon": 4.0}))
    assert strategy.delivered == [0, 1, 2]
    (found,) = strategy.history.metrics.values()
    assert "accuracy, partition 0" in found
    assert "accuracy, partition 1" not in found
    with pytest.raises(ValueError, match="which a site with a max-epsilon keeps"):
        ways(config | {"max-epsilon": 8.0})


@pytest.mark.parametrize(
    "key",
    [
        "max_epsilon",
        "Max-Epsilon",
        "max-eps",
        "eps-max",
        "epsilon-max",
        "dry_run",
        "sitedir",
        "epsilon",
        "held-out",
    ],
)
def test_a_key_of_a_node_that_nobody_reads_is_refused(key, path):
    """A misspelt limit is no limit."""
    config = private(path)
    with pytest.raises(SurefootError, match=f"{key} in the node's configuration is read by nobody"):
        run(config, grid=nodes(config, **{key: 1.0}))


def test_keys_of_other_apps_may_stand_beside_ours(path):
    config = private(path)
    assert run(config, grid=nodes(config, camera="left")).delivered == [0, 1, 2]
    assert set(OF_NODE) - KEYS == {"partition-id"}


# ------------------------------------------------------------------ the ledger


def test_a_site_counts_its_own_records_at_whatever_partition(path, tmp_path):
    site, own, stored = tmp_path / "site", tmp_path / "own.npz", np.load(path)
    site.mkdir()
    np.savez(own, features=stored["features"][:40], labels=stored["labels"][:40], encoder="toy")
    node = {"data-path": str(own), "site-dir": str(site)}
    run(private(path), grid=nodes(private(path), only=0, **node))
    with pytest.raises(
        SurefootError, match=r"partition 2: .*above max_epsilon 4 \(4 spent before\)"
    ):
        run(private(path), grid=nodes(private(path), only=2, **node))


def test_a_ledger_that_is_gone_or_of_other_records_stops_the_site(path, tmp_path):
    config = private(path, **{"site-dir": str(tmp_path), "max-epsilon": 50.0})
    run(config)
    kept = (tmp_path / "ledger-0.json").read_bytes()
    (tmp_path / "ledger-0.json").unlink()
    with pytest.raises(SurefootError, match=r"ledger-0.json is gone, .* nothing is released"):
        run(config)
    (tmp_path / "ledger-0.json").write_bytes(kept)
    with pytest.raises(SurefootError, match=r"dealt out to 3 partitions by .* dealt out to 4 "):
        run(config | {"num-partitions": 4})
    run(config)


def test_a_record_that_moves_to_another_ledger_stops_the_site(path, tmp_path):
    """More partitions than domains: another seed deals a domain's records out otherwise."""
    config = private(path, **{"num-partitions": 6, "site-dir": str(tmp_path), "max-epsilon": 6.0})
    one, other = (set(mpft_task(config | {"seed": s})._own(0, 6)) for s in (0, 1))
    assert one != other
    run(config)
    with pytest.raises(SurefootError, match=r"by seed 0, .* by seed 1: .* nothing is released"):
        run(config | {"seed": 1})


def test_the_run_does_not_say_which_ledger_counts(path, tmp_path):
    config = private(path, **{"site-dir": str(tmp_path)})
    run(config)
    again = config | {"own-data": True}
    grid = nodes(config)
    strategy = ways(config)[1]
    for context in grid.contexts.values():
        context.run_config = again
    with pytest.raises(SurefootError, match=r"above max_epsilon 4 \(4 spent before\)"):
        strategy.start(grid, strategy.initial_arrays())
    assert not (tmp_path / "ledger.json").exists()


def test_two_runs_at_once_do_not_both_spend_what_is_there_once(path, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from surefoot.prototypes._client.site import Site
    from surefoot.prototypes.doors.leaving import charge

    config = {"max-epsilon": 6.0, "max-delta": None}  # one release of epsilon 4 fits, two do not

    class Node:
        def __init__(self):
            self.state = {}

    def spend(_):
        with contextlib.suppress(RuntimeError):
            charge(
                Node(),
                Site(tmp_path, 0, (3, 0)),
                GaussianRelease(4.0, 1e-5),
                config | {"max-epsilon": 5.0},
            )
            return 1
        return 0

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(16))) == 1
    assert json.loads((tmp_path / "ledger-0.json").read_text())["epsilon"] == pytest.approx(4.0)


# ------------------------------------------------------------------ the file


def test_the_bytes_that_were_inspected_are_those_on_the_wire(path, tmp_path):
    config = private(path, **{"site-dir": str(tmp_path)})
    with pytest.raises(SurefootError, match="dry run"):
        run(config | {"dry-run": True})
    seen = {}

    def watched(server_round, partition, reply):
        if server_round == 1:
            seen[partition] = {k: a.data for k, a in reply.content["arrays"].items()}
        return reply

    run(config | {"send-inspected": True}, watched)
    for p in range(3):
        with zipfile.ZipFile(tmp_path / f"upload-{p}.npz") as archive:
            inside = {n[:-4]: archive.read(n) for n in archive.namelist() if n.endswith(".npy")}
        assert seen[p] == inside


def test_a_refused_run_leaves_the_file_of_what_left(path, tmp_path):
    config = private(path, **{"site-dir": str(tmp_path)})
    strategy = run(config)
    with pytest.raises(SurefootError, match="above max_epsilon"):
        run(config)
    kept = PrototypeSet.load(tmp_path / "upload-1.npz")
    assert torch.equal(kept.features, strategy.sets[1].features)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"held-out": 0.2}, "another records"),
        ({"seed": 1}, "another records and another seed"),
        ({"min-cluster": 3}, "another min-cluster"),
    ],
)
def test_what_was_inspected_is_sent_to_no_other_run(change, said, path, tmp_path):
    config = config_of(path, method="cluster", epochs=1, **{"site-dir": str(tmp_path)})
    with pytest.raises(SurefootError, match="dry run"):
        run(config | {"dry-run": True})
    with pytest.raises(SurefootError, match=f"was made with {said} than this run asks for"):
        run(config | change | {"send-inspected": True})


def test_classes_in_another_order_are_not_sent_under_the_old_numbers(tmp_path):
    names = ["a", "b", "c", "d"]
    config = config_of(
        feature_file(tmp_path / "f.npz", classes=np.array(names)), method="mean", epochs=1,
        **{"site-dir": str(tmp_path)},
    )  # fmt: skip
    with pytest.raises(SurefootError, match="dry run"):
        run(config | {"dry-run": True})
    turned = feature_file(tmp_path / "g.npz", classes=np.array(names[::-1]))
    with pytest.raises(SurefootError, match="another records"):
        run(
            config | {"send-inspected": True, "head-path": str(turned)},
            grid=nodes(config),
        )


def test_one_site_in_a_dry_run_does_not_end_that_of_the_others(path, tmp_path):
    """Theirs is spent by then."""
    config = private(path, **{"min-clients": 2})
    grid = nodes(config, only=1, **{"site-dir": str(tmp_path), "dry-run": True})
    strategy = run(config, grid=grid)
    assert strategy.history.rounds[0].partitions == [0, 2]
    assert "dry run, nothing was sent" in strategy.history.rounds[0].rejected[1]
    with pytest.raises(SurefootError, match=r"2 good uploads of 3.*partition 1: dry run"):
        run(
            private(path),
            grid=nodes(private(path), only=1, **{"site-dir": str(tmp_path), "dry-run": True}),
        )


# ------------------------------------------------------------------ what the strategy would not read


def test_a_start_that_would_not_be_used_is_refused(path):
    config = config_of(path, method="mean", epochs=1)
    app, strategy = ways(config)
    grid, own = InProcessGrid(app, 3, config), strategy.initial_arrays()
    other = ways(config | {"seed": 3})[1].initial_arrays()
    with pytest.raises(ValueError, match=r"initial_arrays must be MPFTStrategy.initial_arrays"):
        strategy.start(grid, other, num_rounds=1)
    for name in ("train_config", "evaluate_config"):
        with pytest.raises(ValueError, match=rf"{name} is not read: give \['lr'\]"):
            strategy.start(grid, own, num_rounds=1, **{name: ConfigRecord({"lr": 9.0})})
    with pytest.raises(ValueError, match="train_config is not read"):
        strategy.start(grid, own, 1, 60.0, ConfigRecord({"lr": 9.0}))
    strategy.start(grid, own, 1, 60.0)
    assert same(strategy.state, run(config).state)
