"""G2: merging commutes with linear aggregation; and the app's strategy in process."""

import pytest
import torch
from tests.federated.grid import InProcessGrid

from surefoot import Record, certify
from surefoot.federated import ServerRule, Visit, federate, lda_partition, to_arrays
from surefoot.reparam import RepOptStrategy, equivalence_gap, equivalence_holds, repopt_client_app
from surefoot.reparam.guarantee import federated_trajectory
from surefoot.reparam.models import repopt_vgg
from surefoot.reparam.scales import Scales
from surefoot.reparam.search import scales_of
from surefoot.reparam.strategy import repopt_strategy, repopt_task
from surefoot.reparam.task import RepOptTask


def build(mode):
    return repopt_vgg((2,), (6,), in_channels=1, mode=mode, strides=(1, 2), activation="silu",
                      dtype=torch.float64)  # fmt: skip


def task(arm, proximal_mu=0.0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, 1, 8, 8, generator=g, dtype=torch.float64)
    y = torch.randint(0, 10, (400,), generator=g)
    signed = {
        p: {b: torch.randn(len(v), generator=g, dtype=torch.float64) for b, v in s.items()}
        for p, s in scales_of(build("csla")).items()
    }
    return RepOptTask(
        build, x, y, lda_partition(y.numpy(), 10, 0.1, 0), scales=Scales(signed), arm=arm,
        batch_size=8, drop_last=True, lr=0.05, momentum=0.9, weight_decay=1e-3, proximal_mu=proximal_mu,
    )  # fmt: skip


def gaps(rule, proximal_mu=0.0, rounds=10):
    found = {}
    for arm in ("fedrepopt", "csla"):
        problem = task(arm, proximal_mu)
        states = []
        server = ServerRule(rule, 0.05 if rule == "fedadam" else 1.0)
        extra = problem.extra(0) if arm == "fedrepopt" else None
        federate(problem, rounds, 10, fraction=0.5, rule=server, extra=extra,
                 after=lambda r, s, m, states=states: states.append(s))  # fmt: skip
        found[arm] = states
    plain, csla = build("plain"), build("csla")
    record = Record()
    for r, (a, b) in enumerate(zip(found["fedrepopt"], found["csla"], strict=True)):
        plain.load_state_dict(a), csla.load_state_dict(b)
        record.update(0, r + 1, {"free-running gap": equivalence_gap(plain, csla)})
    return record


@pytest.mark.parametrize("rule", ["fedavg", "fedavgm", "fedprox"])
def test_linear_servers_keep_the_equivalence(rule, measured):
    record = gaps(rule, 0.1 if rule == "fedprox" else 0.0)
    worst = record["free-running gap"].max()
    measured(
        "8.2 gap over 10 rounds, 10 clients, LDA 0.1, half", "<= 1e-11", f"{rule}: {worst:.1e}"
    )
    promise = federated_trajectory(equivalence_holds(server=rule))
    assert certify(record, promise).verdict == "KEPT"


def test_a_server_adam_does_not(measured):
    record = gaps("fedadam")
    worst = record["free-running gap"].max()
    measured("8.2 gap with FedAdam", ">= 1e-3, not guaranteed", f"{worst:.1e}")
    assert worst >= 1e-3
    assert (
        certify(record, federated_trajectory(equivalence_holds(server="fedadam"))).verdict
        == "NOT_PROMISED"
    )
    assert certify(record, federated_trajectory(equivalence_holds())).verdict == "BROKEN"


SMALL = {
    "data": "digits",
    "num-partitions": 3,
    "examples": 150,
    "depths": "1",
    "widths": "4",
    "alpha": 10.0,
}


@pytest.mark.parametrize("arm", ["fedrepopt", "csla", "rep", "inf"])
def test_the_app_in_process_equals_the_reference(arm):
    config = {**SMALL, "arm": arm}
    problem = repopt_task(config)
    strategy = repopt_strategy(config, problem)
    grid = InProcessGrid(repopt_client_app(**config), 3)
    strategy.start(grid, to_arrays(problem.initial(0)), num_rounds=2)
    reference = federate(problem, 2, 3, extra=problem.extra(0))
    assert all(torch.equal(strategy.state[k], v) for k, v in reference.items())
    assert strategy.assumption.holds
    assert set(problem.evaluate(reference)) == {"accuracy", "loss"}


def test_a_client_without_its_multipliers_says_so():
    problem = repopt_task(SMALL)
    strategy = RepOptStrategy(3, mults={})
    grid = InProcessGrid(repopt_client_app(**SMALL), 3)
    strategy.start(grid, to_arrays(problem.initial(0)), num_rounds=1)
    assert "multipliers are missing" in strategy.report.rounds[0].lost[0]


def test_local_statistics_stay_with_their_client():
    problem = task("inf")
    problem.bn = "local"
    memory = {}
    visit = Visit(0, 10, 1, 5, memory)
    start = problem.initial(0)
    new, *_ = problem.train({k: v.clone() for k, v in start.items()}, visit)
    assert all(torch.equal(memory[k], new[k]) for k in memory)
    assert any(k.endswith("running_mean") for k in memory)


def test_unknown_arms_are_refused(unchecked):
    with pytest.raises(ValueError, match="arm must be"):
        task("fedavg")
