"""Whatever torch's default dtype is: the same networks, embeddings and searches, bit for bit."""

import contextlib

import pytest
import torch

from surefoot.architecture import MLPSpace, NetworkAutoencoder, random_features, search
from surefoot.architecture.experiments.warm_start import fresh_start

SMALL = MLPSpace(2, 1, 5, 2, ("tanh", "relu"))


@contextlib.contextmanager
def default(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def generator():
    return torch.Generator().manual_seed(0)


def tensors_of(nets):
    return [t for part in nets.parts for t in part]


def drawn():
    paper = MLPSpace.paper().sample(1, 2, generator())
    moved = SMALL.sample(2, 2, generator()).permuted(generator())
    x = SMALL.sample_inputs(4, generator())
    normal = MLPSpace(2, 1, 5, 2, input_dist="normal").sample_inputs(4, generator())
    start = fresh_start(SMALL.sample(1, 1, generator()).to_sequential(0), generator())
    read = type(moved).from_sequential(SMALL.sample(1, 1, generator()).to_sequential(0), SMALL)
    return [
        *tensors_of(paper), *tensors_of(moved), *tensors_of(read), x, normal, SMALL.grid(3), moved(x),
        *start.parameters(),
    ]  # fmt: skip


def embedded(encoder, decoder):
    model = NetworkAutoencoder(SMALL, 4, encoder, decoder).fit(steps=1)
    z = model.encode(SMALL.sample(2, 2, generator()))
    return [z, *tensors_of(model.decode(z, 1, hard=True)), *model.parameters()]


def searched():
    x = SMALL.sample_inputs(30, generator())
    settings = {"task": "regression", "depth": 1, "restarts": 2, "steps": 3}
    model = NetworkAutoencoder(MLPSpace(3, 1, 5, 2), 4)  # adapted to two columns
    features = random_features(SMALL, x, x[:, 0], task="regression", depth=2, networks=9)
    found = [
        search(m, x, x[:, 0] * x[:, 1], generator=generator(), **settings) for m in (SMALL, model)
    ]
    return [t for nets in (features, *found) for t in tensors_of(nets)]


@pytest.mark.parametrize(
    "made",
    [
        drawn,
        lambda: embedded("probe", "mlp"),
        lambda: embedded("matrix", "chunked"),
        lambda: embedded("conv", "conv"),
        searched,
    ],
    ids=["drawn", "probe", "chunked", "conv", "searched"],
)
def test_the_default_dtype_changes_nothing(made):
    wanted = made()
    with default(torch.float64):
        found = made()
    assert all(t.dtype == torch.float32 for t in wanted)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
