"""Contract of every optimizer: what people put around it, or a sentence that says why not."""

import ast
import warnings
from pathlib import Path

import pytest
import torch
from tests.contract.members import MEMBERS
from tests.contract.problem import loss_of, network, refused, same, settle, train, values

import surefoot

every = pytest.mark.parametrize("member", MEMBERS, ids=str)
on_gradients = pytest.mark.parametrize(
    "member", [m for m in MEMBERS if m.needs == "gradients"], ids=str
)


def started(member):
    model = network()
    return model, member.make(list(model.parameters()), model)


def optimizer_classes():
    """The classes of the source that descend from torch's Optimizer, read without importing any."""
    source = Path(surefoot.__path__[0])
    bases, exported = {}, set()
    files = [p for p in source.rglob("*.py*") if p.suffix in (".py", ".pyi")]
    for path in (p for p in files if p.name != "reference.py"):  # those only check others
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                bases[node.name] = {ast.unparse(b).split(".")[-1] for b in node.bases}
            elif isinstance(node, ast.ImportFrom) and path.suffix == ".pyi":
                exported |= {alias.asname or alias.name for alias in node.names}
    found, before = {"Optimizer"}, set()
    while found != before:
        before = set(found)
        found |= {name for name, above in bases.items() if above & found}
    inherited = set().union(*(bases[name] for name in found - {"Optimizer"}))
    # A class that others build on is one of these only where people can make it.
    return {name for name in found if name in exported or name not in inherited}


def test_every_optimizer_of_the_package_is_a_member():
    covered = {type(started(member)[1]).__name__ for member in MEMBERS}
    assert {"AGNES", "RepSGD", "Wrapped", "LOZO"} <= covered
    assert optimizer_classes() == covered


@every
def test_with_a_closure(member):
    """`step(closure)` evaluates it with gradients and returns its loss."""
    if "no closure" in member.refuses:
        model, optimizer = started(member)
        before = values(model)
        with refused(member, "no closure"):
            optimizer.step()
        assert same(before, model)
        return
    one, two = started(member), started(member)

    def closure():
        assert torch.is_grad_enabled()
        one[1].zero_grad()
        loss = loss_of(one[0])()
        loss.backward()
        return loss

    seen = []
    for _ in range(4):
        with torch.no_grad():
            seen.append(float(one[1].step(closure).detach()))
    assert seen == train(member, two[1], loss_of(two[0]), 4)
    assert same(one[0], two[0])


@every
def test_an_error_in_the_closure_leaves_the_weights(member):
    model, optimizer = started(member)
    train(member, optimizer, loss_of(model), 2)
    settle(optimizer)
    before = values(model)

    def closure():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimizer.step(closure)
    for a, b in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=member.drift)


class Counting:
    """A backend of torch.compile that runs the graph as it is and counts how often it is asked."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, inputs):
        self.graphs += 1
        return graph.forward


@every
@pytest.mark.parametrize("when", ["before construction", "after construction"])
def test_compiled_models_give_the_losses_of_eager_ones(member, when):
    """And nothing is compiled again at every step."""
    torch._dynamo.reset()
    plain, optimizer = started(member)
    eager = train(member, optimizer, loss_of(plain), 12)
    backend = Counting()
    model = network()
    with warnings.catch_warnings():
        # Dynamo tells of cache limits, and torch of its own deprecations, by warnings.
        warnings.simplefilter("ignore")
        if when == "before construction":
            compiled = torch.compile(model, backend=backend)
            optimizer = member.make(list(compiled.parameters()), compiled)
        else:
            optimizer = member.make(list(model.parameters()), model)
            compiled = torch.compile(model, backend=backend)
        seen = train(member, optimizer, loss_of(compiled), 8)
        after = backend.graphs
        seen += train(member, optimizer, loss_of(compiled), 4)
    assert seen == pytest.approx(eager, rel=1e-9)
    assert after > 0
    assert backend.graphs == after


@every
def test_accelerate(member):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState, PartialState

    one, two = started(member), started(member)
    train(member, two[1], loss_of(two[0]), 5)
    settle(two[1])
    try:
        accelerator = Accelerator(cpu=True)
        model, optimizer = accelerator.prepare(*one)
        for _ in range(5):
            if member.needs == "losses":
                optimizer.step(loss_of(model))
                continue
            optimizer.zero_grad()
            accelerator.backward(loss_of(model)())
            optimizer.step()
        settle(optimizer.optimizer)
        assert same(accelerator.unwrap_model(model), two[0])
    finally:
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()


@every
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # from Opacus' hooks
def test_opacus(member):
    """Without noise and without clipping a private step is the plain one."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    one, two = started(member), started(member)
    model = GradSampleModule(one[0])
    optimizer = DPOptimizer(one[1], noise_multiplier=0.0, max_grad_norm=1e9, expected_batch_size=12)
    # The loss is a mean over rows and columns; Opacus takes the mean over rows itself.
    if "Opacus" in member.refuses:
        before = values(two[0])
        with refused(member, "Opacus"):
            loss_of(model)().backward()
            optimizer.step()
        assert same(before, one[0])
        return
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(model)().backward()
        optimizer.step()
    train(member, two[1], loss_of(two[0]), 4)
    for a, b in zip(one[0].parameters(), two[0].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
