"""Chains whose gradients Opacus clips and noises."""

import opacus
import pytest
import torch
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from surefoot.lora import ChainOfLora, RacConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore:Secure RNG turned off"),
    pytest.mark.filterwarnings("ignore:Full backward hook is firing"),
    pytest.mark.filterwarnings("ignore:Optimal order is the largest alpha"),
]


def private(toys, mode="hooks", noise=0.0, **config):
    model = toys.wrapped()
    chain = ChainOfLora(model, RacConfig(**{"steps_per_block": 2, "seed": 1} | config))
    inner = torch.optim.SGD(chain.param_groups(0.1), lr=0.1)
    x, y = toys.batch(0, rows=32)
    made = opacus.PrivacyEngine().make_private(
        module=model, optimizer=inner, data_loader=DataLoader(TensorDataset(x, y), batch_size=8),
        noise_multiplier=noise, max_grad_norm=0.05, poisson_sampling=False, grad_sample_mode=mode,
        criterion=nn.CrossEntropyLoss(),
    )  # fmt: skip
    model, optimizer, loader = made[0], made[1], made[-1]
    criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()
    return chain, model, optimizer, inner, criterion, loader


@pytest.mark.parametrize(("passed", "zero_last"), [("inner", True), ("private", False)])
@pytest.mark.parametrize(
    ("mode", "config"),
    [
        ("hooks", {}), ("functorch", {"train": "A"}), ("ghost", {"method": "cola"}),
        ("hooks", {"method": "fpft"}),
    ],
    ids=str,
)  # fmt: skip
def test_no_theorem_covers_it_whichever_optimizer_is_passed(toys, mode, config, passed, zero_last):
    chain, model, optimizer, inner, criterion, loader = private(toys, mode, 1.0, **config)
    for x, y in loader:
        if not zero_last:
            optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
        chain.step(optimizer if passed == "private" else inner)
        if zero_last:
            optimizer.zero_grad()
    assert chain.total_steps == 4
    guarantee = chain.guarantee(L=1.0)
    assert guarantee.status == "not covered"
    assert any("Opacus" in reason for reason in guarantee.reasons)
    # Nothing of the gradients before the noise is in the record.
    assert "grad_norm2_estimate" not in chain.record
    assert "projected_grad_norm2" not in chain.record


def test_plain_sgd_is_covered(toys):
    chain, _ = toys.make()
    toys.train(chain, torch.optim.SGD(chain.param_groups(0.1), lr=0.1), 4)
    assert chain.guarantee(L=1.0).status == "covered"


@pytest.mark.parametrize("train", ["A", "B"])
def test_per_sample_norms_are_those_of_the_trained_factor(toys, train):
    chain, model, optimizer, _, criterion, loader = private(toys, train=train)
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        trained = [layer.parameter(chain.side) for layer in chain.layers]
        norms = torch.stack([p.grad_sample.flatten(1).norm(dim=1) for p in trained]).norm(dim=0)
        model.disable_hooks()
        singly = [
            torch.autograd.grad(criterion(chain.model(x[i : i + 1]), y[i : i + 1]), trained)
            for i in range(len(x))
        ]
        model.enable_hooks()
        exact = torch.tensor([sum(float(g.square().sum()) for g in each) ** 0.5 for each in singly])
        torch.testing.assert_close(norms, exact, rtol=1e-4, atol=1e-6)
        assert all(
            getattr(layer.parameter("A" if chain.side == "B" else "B"), "grad_sample", None) is None
            for layer in chain.layers
        )
        optimizer.step()
        chain.step(optimizer)
    assert len(chain.reports) == 2


@pytest.mark.parametrize("mode", ["hooks", "ghost"])
@pytest.mark.parametrize("train", ["alternate", "bernoulli(0.5)"])
def test_a_changing_side_is_refused_before_the_first_step(toys, train, mode):
    chain, model, optimizer, inner, _, loader = private(toys, mode, train=train)
    x, _ = next(iter(loader))
    with pytest.raises(ValueError, match="Opacus takes per-sample .* use train='A' or train='B'"):
        model(x)
    for each in (optimizer, inner):
        with pytest.raises(ValueError, match="Opacus"):
            chain.attach(each)


def test_a_batch_in_parts_is_one_step(toys):
    chain, model, optimizer, _, criterion, loader = private(toys)
    with BatchMemoryManager(
        data_loader=loader, max_physical_batch_size=4, optimizer=optimizer
    ) as parts:
        for x, y in parts:
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()
            chain.step(optimizer)
    assert chain.total_steps == 4
    assert chain.state.skipped_steps == 4


def test_blocks_warm_up(toys):
    chain, model, optimizer, inner, criterion, loader = private(toys, warmup_steps_per_block=1)
    chain.attach(optimizer)
    seen = []
    inner.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["lr"]))
    for x, y in loader:
        criterion(model(x), y).backward()
        optimizer.step()
        chain.step(optimizer)
        optimizer.zero_grad()
    assert seen[0] == pytest.approx(seen[1] / 2)
