"""Models under torch.compile: eager's losses, and nothing compiled anew from step to step."""

import warnings

import pytest
import torch
from torch import nn

from surefoot.zeroth_order import LOZO

IDS = torch.randint(0, 13, (16, 3), generator=torch.Generator().manual_seed(0))


class Counting:
    """A backend that runs what it is given, and counts how often it is asked."""

    def __init__(self, inner="eager"):
        self.graphs, self.inner = 0, inner

    def __call__(self, graph, inputs):
        self.graphs += 1
        return torch._dynamo.lookup_backend(self.inner)(graph, inputs)


@pytest.fixture(autouse=True)
def no_code_of_other_tests():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Embedding(13, 8), nn.Flatten(), nn.Linear(24, 9), nn.Tanh(), nn.Linear(9, 4)
        )


def run(how, backend, **settings):
    """Losses of 12 steps over three periods, graphs compiled up to each of them, how tensors are kept."""
    model, settings = network(), {"nu": 4, "seed": 1} | settings
    if how == "before":
        used = torch.compile(model, backend=backend)
        optimizer = LOZO(used, 1e-2, **settings)
    elif how == "before, and has run":
        used = torch.compile(model, backend=backend)
        with torch.no_grad():
            used(IDS)
        optimizer = LOZO(used, 1e-2, **settings)
    elif how == "after":
        optimizer = LOZO(model, 1e-2, **settings)
        used = torch.compile(model, backend=backend)
    elif how == "in place":
        used = model
        used.compile(backend=backend)
        optimizer = LOZO(used, 1e-2, **settings)
    else:
        used, optimizer = model, LOZO(model, 1e-2, **settings)
    losses, graphs = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(12):
            losses.append(float(optimizer.step(lambda: used(IDS).square().mean())))
            graphs.append(backend.graphs)
    optimizer.flush()
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    return losses, graphs, weights, [x.storage for x in optimizer.tensors if not x.dense]


@pytest.mark.parametrize(
    "how",
    [
        "before",
        pytest.param("before, and has run", marks=pytest.mark.acceptance),
        "after",
        pytest.param("in place", marks=pytest.mark.acceptance),
    ],
)
def test_the_same_losses_and_no_graph_after_the_first_step(how):
    backend = Counting()
    losses, _, weights, _ = run("eager", backend)
    assert backend.graphs == 0
    compiled, graphs, moved, storage = run(how, backend)
    assert compiled == losses
    assert torch.equal(moved, weights)
    assert graphs[0] > 0
    assert graphs[-1] == graphs[0]
    assert set(storage) == {"hooked"}


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"momentum": 0.9, "scale": "unit"}, marks=pytest.mark.acceptance),
        pytest.param({"num_directions": 2}, marks=pytest.mark.acceptance),
        {"self_check": False},
    ],
    ids=str,
)
def test_other_settings(settings):
    backend = Counting()
    losses, *_ = run("eager", backend, **settings)
    compiled, graphs, *_ = run("after", backend, **settings)
    assert compiled == losses
    assert graphs[-1] == graphs[0]


def test_copies_share_a_forward_of_a_compiled_model():
    """Which then runs as it was written: the steps of the model itself, without a warning."""
    goals = torch.randn(16, 4, generator=torch.Generator().manual_seed(3))
    found = []
    for compiled in (False, True):
        backend, model, graphs = Counting(), network(), []
        used = torch.compile(model, backend=backend) if compiled else model
        optimizer = LOZO(used, 1e-2, nu=4, seed=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(6):
                loss = optimizer.step(
                    lambda b, used=used: nn.functional.mse_loss(used(b[0]), b[1]),
                    (IDS, goals),
                    paired=True,
                )
                graphs.append(backend.graphs)
        assert optimizer.last["how"].startswith("one forward of 2 copies")
        assert graphs[-1] == graphs[0]  # those of the first step's check, which has forwards apart
        found.append(float(loss))
    assert found[0] == found[1]


@pytest.mark.acceptance
def test_a_backend_that_rewrites_the_graph():
    losses, *_ = run("eager", Counting())
    compiled, graphs, *_ = run("before", Counting("aot_eager"))
    assert compiled == pytest.approx(losses, rel=1e-6)
    assert graphs[-1] == graphs[0]


def test_a_compiled_model_has_the_names_of_the_model():
    """A log of a run under torch.compile replays on the model as it is loaded."""
    from surefoot.zeroth_order import replay

    model = network()
    optimizer = LOZO(torch.compile(model, backend="eager"), 1e-2, nu=4, log=True)
    assert [x.name for x in optimizer.tensors][:2] == ["0.weight", "2.weight"]
    for _ in range(5):
        optimizer.step(lambda: optimizer.model(IDS).square().mean())
    optimizer.flush()
    rebuilt = replay(network(), optimizer.log)
    for p, q in zip(rebuilt.parameters(), model.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.acceptance
def test_the_trainers_own_switch(tmp_path):
    pytest.importorskip("transformers", reason="needs the llm extra")
    from tests.zeroth_order.test_trainer import model, trainer

    found = []
    for switch in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work = trainer(model(), tmp_path, steps=6, accumulation=1, **switch)
            work.train()
        found.append([e["loss"] for e in work.state.log_history if "loss" in e])
        assert {x.storage for x in work.zeroth_order.tensors if not x.dense} == {"hooked"}
    assert found[1] == pytest.approx(found[0], abs=1e-6)
