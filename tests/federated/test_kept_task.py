"""A node builds its task once a run, holds one at a time, and the bits are those of a task built anew."""

import gc
import pickle
import weakref

import pytest
import torch
from tests.federated.grid import InProcessGrid
from tests.federated.test_strategy import Drift

from surefoot.federated import DeterministicFedAvg, federate, make_client_app, to_arrays
from surefoot.federated.kept_task import KeptTask
from surefoot.lora.doors.flower import RacSettings, RacStrategy, rac_client_app

BUILT = []


class Built(Drift):
    def __init__(self, config):
        super().__init__(config)
        BUILT.append(weakref.ref(self))

    def train(self, state, visit):
        if self.config.get("fails") and (visit.server_round, visit.partition) == (2, 1):
            raise RuntimeError("planted")
        return super().train(state, visit)


@pytest.fixture(autouse=True)
def none_built():
    BUILT.clear()


def alive():
    gc.collect()
    return sum(ref() is not None for ref in BUILT)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
def test_built_once_and_the_same_bits(fraction):
    grid = InProcessGrid(make_client_app(Built), 4, shuffle=1)
    strategy = DeterministicFedAvg(4, node_timeout=0.1, fraction=fraction)
    strategy.start(grid, to_arrays(Drift({}).initial(0)), 3)
    assert len(BUILT) == 1
    expected = federate(Drift({}), 3, 4, fraction=fraction)
    assert all(torch.equal(strategy.state[k], v) for k, v in expected.items())


def test_another_run_or_configuration_has_its_own_and_one_is_held():
    kept = KeptTask(Built)
    for run, config in ((1, {"a": 1}), (1, {"a": 1.0}), (1, {"a": True}), (2, {"a": 1}), (2, {})):
        for _ in range(2):
            with kept.of(run, config) as task:
                assert task.config == config
    assert len(BUILT) == 5
    del task
    assert alive() == 1


def test_a_task_that_failed_is_not_used_again():
    grid = InProcessGrid(make_client_app(Built, {"fails": 1}), 3)
    strategy = DeterministicFedAvg(3, node_timeout=0.1)
    strategy.start(grid, to_arrays(Drift({}).initial(0)), 3)
    assert "planted" in strategy.history.rounds[1].lost[1]
    assert len(BUILT) == 2


def test_two_messages_at_once_have_a_task_each():
    kept = KeptTask(Built)
    with kept.of(1, {}) as one, kept.of(1, {}) as two:
        assert one is not two
    del one, two
    assert alive() == 1


def test_an_app_that_travels_takes_no_task_along():
    kept = KeptTask(Built)
    with kept.of(1, {}):
        pass
    there = pickle.loads(pickle.dumps(kept))
    assert there.make_task is Built
    with there.of(1, {}):
        pass
    assert len(BUILT) == 2


def test_the_problem_of_fed_rac_lora_is_kept_too():
    from tests.lora.test_federated import Quadratics

    class Counted(Quadratics):
        def __init__(self, config=None):
            BUILT.append(weakref.ref(self))

    strategy = RacStrategy(3, RacSettings(2, 0.1), node_timeout=0.1)
    grid = InProcessGrid(rac_client_app(Counted), 3)
    strategy.start(grid, to_arrays(Quadratics().initial(0)), 3)
    assert len(BUILT) == 1
