"""Contract of every optimizer: two processes with half of the batch each are one with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.contract.members import MEMBERS
from tests.contract.problem import loss_of, network, settle, train
from tests.contract.two_processes import STEPS

ROOT = Path(__file__).parents[2]
SIZE = 2


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What each process ended with: {member: state of the model}; one start for all members."""
    folder = tmp_path_factory.mktemp("gloo")
    environment = os.environ | {
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.two_processes", str(i), str(SIZE), str(folder)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for i in range(SIZE)
    ]  # fmt: skip
    for worker in workers:
        said, _ = worker.communicate(timeout=600)
        assert worker.returncode == 0, said
    return [torch.load(folder / f"rank{i}.pt", weights_only=True) for i in range(SIZE)]


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_two_processes_are_one(member, ends):
    model = network()
    optimizer = member.make(list(model.parameters()), model)
    train(member, optimizer, loss_of(model), STEPS)
    settle(optimizer)
    # A difference of losses over 2 eps keeps fewer digits than a gradient.
    atol = 1e-6 if member.needs == "losses" else 1e-12
    for name, value in model.state_dict().items():
        first, second = (end[member.name][name] for end in ends)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, value, rtol=0, atol=atol)
