"""The ablation: equal budgets, the test rows read once, peers that do what they say."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from surefoot._problems.paired import paired
from surefoot.architecture._fit.budget import Budget
from surefoot.architecture._peers.dense import Peer, peers_problem
from surefoot.architecture.baselines import random_decoder
from surefoot.architecture.experiments import ablation
from surefoot.architecture.experiments.arms import ARMS, PEER, Given
from surefoot.architecture.experiments.real_tables import CAPS, TABLES, hypervolume, split
from surefoot.architecture.pareto import ParetoPoint
from surefoot.architecture.pretraining import DEFAULT_SPACE
from surefoot.architecture.study import ArchitectureConfig
from surefoot.errors import MissingExtraError, UnknownNameError
from surefoot.record import Record

SECONDS = 0.02
POINT = {
    "n_params": 3, "source": "dense", "depth": 0, "widths": (), "activations": (), "cert_bound": None,
    "module": nn.Sequential(nn.Linear(13, 3)), "standard_error": 0.0, "cert_median": None,
    "folding_deviation": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def record():
    found = Record()
    for seed in (0, 1):
        ablation.run(ArchitectureConfig(seconds=SECONDS), seed, found)
    return found


def test_hypervolume_by_hand():
    assert hypervolume([(1, 0.0)]) == 1
    assert hypervolume([(10, 0.5), (100, 0.25)]) == pytest.approx((2.5 * 0.5 + 1.5 * 0.25) / 3.5)
    # Dominated points, errors above 1 and networks of more than 10^3.5 numbers add nothing.
    more = [(10, 0.5), (100, 0.25), (100, 0.6), (5, 1.7), (10_000, 0.0)]
    assert hypervolume(more) == hypervolume([(10, 0.5), (100, 0.25)])
    assert hypervolume([(0, 1.0)]) == 0


def test_errors_are_beside_the_constant_model():
    numbers, classes = split("diabetes", 0), split("wine", 0)
    mean = np.full((len(numbers.y_test), 1), numbers.y_test.mean())
    assert numbers.relative_error(mean) == pytest.approx(1)
    assert numbers.relative_error(numbers.y_test[:, None]) == 0
    often = np.eye(3)[np.full(len(classes.y_test), np.bincount(classes.y_test).argmax())]
    assert classes.relative_error(often) == pytest.approx(1)
    assert classes.score(1.0) == pytest.approx(np.bincount(classes.y_test).max() / 45)
    assert numbers.score(0.25) == 0.75


def test_splits_are_disjoint_and_of_every_table():
    for name in TABLES:
        table = split(name, 3)
        assert len(table.y_test) == math.ceil(0.25 * (len(table.y) + len(table.y_test)))
        assert (
            not (table.X_test[:, None] == table.X[None, :50]).all(axis=2).any() or name == "digits"
        )
        assert split(name, 3).y_test.tolist() == table.y_test.tolist()
        assert split(name, 4).y_test.tolist() != table.y_test.tolist()
        assert list(CAPS[name]) == sorted(CAPS[name])


def test_no_arm_sees_the_test_rows():
    """Test rows that would stop every fit: all are NaN."""
    table = split("wine", 0)
    blind = table._replace(X_test=np.full_like(table.X_test, np.nan), y_test=None)
    given = Given(blind, SECONDS, 0, random_decoder(DEFAULT_SPACE, 0))
    for name, arm in ARMS.items():
        try:
            points = arm(given)
        except MissingExtraError:
            assert name in (PEER, "torch-pruning")
            continue
        assert points[0].source == "constant"
        assert [p.n_nonzero for p in points] == sorted(p.n_nonzero for p in points)


def test_both_sides_choose_by_the_same_rows():
    table = split("wine", 0)
    from surefoot.architecture import CompactMLPClassifier

    model = CompactMLPClassifier(steps=20, random_state=5, strategy="dense").fit(table.X, table.y)
    rows = peers_problem(table.X, table.y, True, 5)
    constant = next(p for p in model.pareto_ if p.source == "constant")
    peer = Peer(rows, Budget(None, 40), 0)
    assert peer.points()[0].val_loss == pytest.approx(constant.val_loss, rel=1e-12)


def test_a_peer_fits_the_linear_model_too_and_prunes_within_its_budget():
    table = split("diabetes", 0)
    budget = Budget(None, 600)
    peer = Peer(peers_problem(table.X, table.y, False, 0), budget, 0)
    peer.grid_and_prune()
    assert any(c.network.depth == 0 and len(c.network.inputs) for c in peer.found)
    assert 600 <= budget.spent < 600 + 150
    zeros = [c for c in peer.found if any((w == 0).any() for w in c.network.weights)]
    assert zeros or min(c.network.n_params for c in peer.found[1:]) < 11


def test_every_arm_has_the_same_seconds_and_its_tables(record):
    config = ArchitectureConfig(seconds=SECONDS)
    left_out = {arm for arm in ARMS if record.fact("left_out", of=arm).all}
    assert left_out <= {PEER, "torch-pruning"}
    assert set(ablation.ran(record)) == set(ARMS) - left_out
    assert record.fact("seconds").all == (SECONDS,)
    assert len(record.fact("decoder").all) == 2
    for arm in ablation.ran(record):
        # A step that has begun is ended: tens of milliseconds, whatever the budget.
        assert record[f"{arm}: CPU seconds"].max() < SECONDS + 1.5
    found = ablation.tables(config, record)
    assert any("minus the arm" in title for title in found)
    ratios = found["hypervolume: mean over seeds of portfolio / arm"].set_index("arm")
    by_hand = record["portfolio: hypervolume"][:, 0] / record["dense: hypervolume"][:, 0]
    assert ratios.loc["dense", "wine"] == pytest.approx(sum(by_hand) / 2)
    assert "searches nothing" in record.fact("shortened").all[0]
    assert all(len(frame) for frame in found.values())
    assert set(ablation.figures(config, record)) == {"every strategy beside the portfolio"}
    alone = ArchitectureConfig(arms=("grid",), seconds=0.05)
    one = Record()
    ablation.run(alone, 0, one)
    assert ablation.ran(one) == ["grid"]
    assert ablation.figures(alone, one) == {}


def test_what_is_built_once_in_a_process_is_not_on_the_clock_of_an_arm(monkeypatch):
    """The first optimizer of torch imports for seconds: more than a search has of ten."""
    built, clocks = [], []
    made = torch.optim.Optimizer.__init__
    monkeypatch.setattr(
        torch.optim.Optimizer,
        "__init__",
        lambda self, *a, **k: (built.append(self), made(self, *a, **k))[1],
    )

    def arm(given):
        clocks.append((given.seconds, len(built)))
        return [ParetoPoint(**POINT, n_nonzero=3, val_loss=1.0)]

    monkeypatch.setattr(ablation, "ARMS", {"one": arm})
    monkeypatch.setattr(ablation, "arms_of", lambda config: ["one"])
    ablation.run(ArchitectureConfig(seconds=12.0), 0, Record())
    assert [seconds for seconds, _ in clocks] == [0.01, 12.0]
    assert clocks[0][1] > 0


def test_points_are_chosen_by_validation_rows_whatever_the_test_rows_say():
    points = [
        ParetoPoint(**POINT, n_nonzero=size, val_loss=loss)
        for size, loss in ((3, 1.0), (9, 0.5), (30, 0.1))
    ]
    found = ablation._measured("one", points, [0.2, 0.9, 0.7], (5, 10, 40), 2.5)
    assert [found[f"one: relative error within cap {i}"] for i in range(3)] == [0.2, 0.9, 0.7]
    assert (found["one: relative error"], found["one: non-zero"]) == (0.7, 30)
    assert found["one: hypervolume"] == pytest.approx((3.5 - math.log10(3)) / 3.5 * 0.8)
    assert found["one: CPU seconds"] == 2.5


def test_intervals_of_re_splits_are_wider():
    d = np.array([0.1, 0.3, 0.2])
    found = paired(d, 1 / 3)
    half = 4.302653 * 0.1  # t(0.975, 2) times the standard deviation
    assert found.mean == pytest.approx(0.2)
    assert found.plain == pytest.approx(half / 3**0.5, rel=1e-6)
    assert found.corrected == pytest.approx(half * (2 / 3) ** 0.5, rel=1e-6)
    assert ablation.test_share("friedman1") == 0
    assert ablation.test_share("wine") == pytest.approx(1 / 3)
    assert math.isnan(paired(d[:1], 0).corrected)


def test_what_it_refuses():
    with pytest.raises(UnknownNameError, match="portfolio"):
        ablation.arms_of(ArchitectureConfig(arms=("portfolo",)))
    with pytest.raises(ValueError, match="seconds"):
        ArchitectureConfig(seconds=0.0)
