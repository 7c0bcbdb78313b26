"""Chains whose blocks a forward-only optimizer trains, which keeps its iterate beside the weights."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from surefoot.lora import ChainOfLora, RacConfig
from surefoot.zeroth_order import LOZO, MeZO, ZOAdam

# The model is saved by the chain itself, which folds first; the check of hooks sees no use of a factor
# whose partner is zero.
pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be perturbed by a hook")

CASES = {
    "factored": (LOZO, {"nu": 25}, {}), "short periods": (LOZO, {"nu": 4}, {}),
    "momentum": (LOZO, {"nu": 25, "momentum": 0.9}, {}), "copies": (LOZO, {"nu": 25, "rank": 8}, {}),
    "in place": (LOZO, {"nu": 25, "mode": "inplace"}, {}), "sides": (LOZO, {"nu": 7}, {"train": "alternate"}),
    "both": (LOZO, {"nu": 25}, {"method": "cola"}), "dense": (MeZO, {}, {}), "Adam": (ZOAdam, {}, {}),
    "moments kept": (LOZO, {"nu": 25, "momentum": 0.9}, {"reset_optimizer": False}),
}  # fmt: skip
LONG = ("short periods", "in place", "both", "dense", "Adam", "moments kept")


def cases(long=()):
    """Every case by its name; the long ones run with the acceptance tests."""
    return [
        pytest.param(case, id=name, marks=[pytest.mark.acceptance] if name in long else [])
        for name, case in CASES.items()
    ]


def made(toys, kind, about, config, lora=None):
    model = toys.wrapped(r=4, **(lora or {}))
    chain = ChainOfLora(model, RacConfig(**{"steps_per_block": 5, "seed": 1} | config))
    about = {"rank": 2, **about} if kind is LOZO else about
    return chain, kind([{"params": chain.trainable_parameters()}], 1e-2, model=model, **about)


@torch.no_grad()
def run(toys, chain, optimizer, steps=13):
    """The largest change of the loss at a merge."""
    x, y = toys.batch(0)
    worst = 0.0
    for _ in range(steps):
        optimizer.step(lambda: nn.functional.cross_entropy(chain.model(x), y))
        before = chain.model(x)
        report = chain.step(optimizer)
        if report is not None:
            assert report.update_norm > 1e-3
            worst = max(worst, float((chain.model(x) - before).abs().max()))
    return worst


@pytest.mark.parametrize("case", cases(LONG))
def test_a_merge_loses_nothing(toys, case, tmp_path):
    chain, optimizer = made(toys, *case, lora={"modules_to_save": ["head"]})
    assert run(toys, chain, optimizer) < 1e-5
    assert len(chain.reports) == 2
    x, _ = toys.batch(0)
    wanted = chain.model(x).detach()
    # The open block has not been merged: what is exported and read has it all the same.
    total = chain.weight("first")
    plain = toys.mlp()
    chain.export_merged(tmp_path)
    plain.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(plain(x), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(plain.first.weight.detach(), total, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(chain.model(x), wanted, rtol=1e-5, atol=1e-5)
    with chain.original() as model:
        torch.testing.assert_close(model(x), toys.mlp()(x), rtol=0, atol=0)
    chain.finish()
    torch.testing.assert_close(chain.model(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("about", "says"), [({"fold": False}, "fold=True"), ({"log": True}, "without log=")]
)
def test_what_a_chain_cannot_merge_is_refused(toys, about, says):
    chain, optimizer = made(toys, LOZO, {"nu": 25, **about}, {})
    with pytest.raises(ValueError, match=says):
        run(toys, chain, optimizer)
    assert chain.reports == []
