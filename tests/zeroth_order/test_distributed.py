"""Several processes, one scalar a step: gloo on two and three processes against one with the whole batch."""

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import os, sys, torch
import torch.distributed as dist
from torch import nn
from surefoot.zeroth_order import LOZO

dist.init_process_group("gloo")
rank, size = dist.get_rank(), dist.get_world_size()

def leave():
    # Gloo's threads may still hold tensors when the interpreter goes, which then aborts now and again.
    dist.barrier()
    dist.destroy_process_group()
    os._exit(0)

calls = []
plain = dist.all_reduce
def counted(tensor, *args, **kwargs):
    calls.append(tensor.numel() * tensor.element_size())
    return plain(tensor, *args, **kwargs)

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
generator = torch.Generator().manual_seed(1)
x = torch.randn(24, 6, generator=generator, dtype=torch.float64)
y = torch.randn(24, 3, generator=generator, dtype=torch.float64)
if sys.argv[1] == "different":
    with torch.no_grad():
        model[0].bias += rank
    optimizer = LOZO(model, 0.01)
    try:
        optimizer.step(lambda: model(x).square().mean())
    except ValueError as error:
        print("ERROR", error, flush=True)
    leave()
weighted = sys.argv[1] == "weighted"
edges = [0, 5, 24] if weighted else [24 * i // size for i in range(size + 1)]
rows = slice(edges[rank], edges[rank + 1])
optimizer = LOZO(model, 0.01, nu=10, momentum=0.9, scale="unit")
dist.all_reduce = counted
for _ in range(50):
    weight = rows.stop - rows.start if weighted else None
    if sys.argv[1] == "batch":
        optimizer.step(lambda b: nn.functional.mse_loss(model(b[0]), b[1]), (x[rows], y[rows]), paired=True)
    else:
        optimizer.step(lambda: (model(x[rows]) - y[rows]).square().mean(), weight=weight)
optimizer.flush()
torch.save({"model": model.state_dict(), "calls": calls}, sys.argv[2] + f"/rank{rank}.pt")
leave()
"""


def launch(processes, how, folder):
    path = folder / "worker.py"
    path.write_text(SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
        "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", str(path), how, str(folder),
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=1200, check=False
    )


def whole():
    from torch import nn

    from surefoot.zeroth_order import LOZO

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 6, generator=generator, dtype=torch.float64)
    y = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    optimizer = LOZO(model, 0.01, nu=10, momentum=0.9, scale="unit")
    for _ in range(50):
        optimizer.step(lambda: (model(x) - y).square().mean())
    optimizer.flush()
    return model.state_dict()


@pytest.mark.parametrize(
    ("processes", "how", "size"),
    [
        (2, "equal", 8),
        (2, "batch", 8),
        pytest.param(2, "weighted", 16, marks=pytest.mark.acceptance),
        pytest.param(3, "equal", 8, marks=pytest.mark.acceptance),
    ],
)
def test_processes_agree_bit_by_bit_and_with_one(tmp_path, processes, how, size):
    done = launch(processes, how, tmp_path)
    assert done.returncode == 0, done.stderr
    ends = [torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in range(processes)]
    single = whole()
    for end in ends:
        # With the first scalar travels a digest of the parameters.
        assert end["calls"] == [size + 16] + [size] * 49
        for name, tensor in end["model"].items():
            assert torch.equal(tensor, ends[0]["model"][name])
            torch.testing.assert_close(tensor, single[name], rtol=0, atol=1e-5)


def test_processes_that_start_apart_are_told(tmp_path):
    done = launch(2, "different", tmp_path)
    assert done.stdout.count("parameters differ between processes") == 2


def test_a_group_without_processes_is_told():
    from surefoot.zeroth_order import LOZO

    with pytest.raises(ValueError, match="needs torch.distributed.init_process_group"):
        LOZO([torch.nn.Parameter(torch.zeros(4, 4))], 0.1, process_group=object())
