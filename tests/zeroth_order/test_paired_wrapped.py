"""What users wrap a model or an optimizer in, with both copies in one forward: it works, or says why not."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from tests.zeroth_order.nets import flat, network, problem

from surefoot.zeroth_order import LOZO, PairedWarning
from surefoot.zeroth_order._engine.paired import pairing as pairings
from surefoot.zeroth_order._engine.paired.forward import PairedForward

SETTINGS = {"lr": 0.01, "nu": 3, "scale": "unit"}


def mse(model):
    return lambda batch: F.mse_loss(model(batch[0]), batch[1])


def plain(steps=4):
    """The parameters after some steps with a forward each."""
    model = network()
    optimizer = LOZO(model, **SETTINGS)
    for _ in range(steps):
        optimizer.step(mse(model), problem(), paired=False)
    return flat(model)


def wrapped(wrap, steps=4):
    inner = network()
    outer = wrap(inner)
    optimizer = LOZO(outer, **SETTINGS)
    for _ in range(steps):
        optimizer.step(mse(outer), problem(), paired=True)
    assert optimizer.last["how"].startswith("one forward of 2 copies")
    return flat(inner)


@pytest.fixture(scope="module")
def wanted():
    return plain()


def test_data_parallel_on_one_device_is_the_model_and_on_several_is_refused(wanted):
    torch.testing.assert_close(wrapped(torch.nn.DataParallel), wanted, rtol=0, atol=1e-10)
    model = torch.nn.DataParallel(network())
    model.device_ids = [0, 1]
    with pytest.raises(ValueError, match="DataParallel replicates the model on 2 GPUs"):
        LOZO(model, **SETTINGS)


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
def test_a_model_that_opacus_has_wrapped(wanted):
    grad_sample = pytest.importorskip("opacus.grad_sample", reason="needs the privacy extra")
    torch.testing.assert_close(wrapped(grad_sample.GradSampleModule), wanted, rtol=0, atol=1e-10)


def test_an_optimizer_that_accelerate_has_prepared(wanted):
    accelerate = pytest.importorskip("accelerate", reason="needs the llm extra")
    model = network()
    optimizer = LOZO(model, **SETTINGS)
    prepared = accelerate.Accelerator(cpu=True).prepare_optimizer(optimizer)
    # Its step takes a closure and nothing else; the batch goes to the optimizer that it holds.
    with pytest.raises(TypeError, match="positional argument"):
        prepared.step(mse(model), problem())
    for _ in range(4):
        prepared.optimizer.step(mse(model), problem(), paired=True)
    torch.testing.assert_close(flat(model), wanted, rtol=0, atol=1e-10)


def test_a_grad_scaler_has_nothing_to_scale():
    model = network(torch.float32)
    optimizer = LOZO(model, **SETTINGS)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))
    with pytest.raises(RuntimeError, match="Closure use is not currently supported"):
        scaler.step(optimizer, closure=lambda: mse(model)(problem(torch.float32)))
    assert optimizer.t == 0


# -- memory -------------------------------------------------------------------------------------------------


def failing_above(monkeypatch, rows, error):
    """A forward of several copies fails with a batch of more rows than that."""
    plainly = PairedForward.__call__

    def call(self, closure, batch, n, points, raw):
        if n * len(points) > rows:
            raise error
        return plainly(self, closure, batch, n, points, raw)

    monkeypatch.setattr(PairedForward, "__call__", call)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("no more"), MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["device", "Python", "torch on the CPU"],
)  # fmt: skip
def test_memory_that_runs_out_is_a_matter_of_size(monkeypatch, error):
    x, y = problem()
    model = network()
    optimizer = LOZO(model, **SETTINGS)
    failing_above(monkeypatch, len(x), error)
    with pytest.warns(PairedWarning, match="ran out of memory with a batch of this size"):
        optimizer.step(mse(model), (x, y))
    assert optimizer.last["how"] == f"two forwards: {pairings.SHORT}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(mse(model), (x, y))
        assert optimizer.last["how"] == f"two forwards: {pairings.SHORT}"
        few = len(x) // 4
        optimizer.step(mse(model), (x[:few], y[:few]))
        assert optimizer.last["how"].startswith("one forward of 2 copies")
    with pytest.raises(type(error)):
        optimizer.step(mse(model), (x, y), paired=True)
    # The iterate is where two forwards alone bring it.
    other = network()
    apart = LOZO(other, **SETTINGS)
    for n in (len(x), len(x), few):
        apart.step(mse(other), (x[:n], y[:n]), paired=False)
    torch.testing.assert_close(flat(model), flat(other), rtol=0, atol=1e-10)


def test_fewer_copies_are_tried_before_none(monkeypatch):
    x, y = problem()
    model = network()
    optimizer = LOZO(model, **SETTINGS, num_directions=4)
    failing_above(monkeypatch, 4 * len(x), torch.OutOfMemoryError("no more"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step(mse(model), (x, y))
    assert optimizer.last["how"].startswith("one forward of 4 copies")


def test_what_the_closure_itself_has_no_memory_for_is_its_own_error(monkeypatch):
    model = network()
    optimizer = LOZO(model, **SETTINGS)

    def closure(batch):
        raise torch.OutOfMemoryError("no more")

    with pytest.raises(torch.OutOfMemoryError, match="no more"):
        optimizer.step(closure, problem())


def test_a_refusal_under_autocast_names_it():
    model, batch = network(torch.float32), problem(torch.float32)

    def closure(given):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model(given[0])
        # A penalty over all rows: copies are mixed, and rounding stands beside it.
        return ((found.float() - given[1]) ** 2).mean() + found.float().mean() ** 2

    with pytest.warns(PairedWarning) as told:
        LOZO(model, **SETTINGS).step(closure, batch)
    assert len(told) == 1
    said = str(told[0].message)
    assert "the closure is in autocast to bfloat16" in said
