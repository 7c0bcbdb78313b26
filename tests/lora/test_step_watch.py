"""A chain looks at the optimizers of its own tensors, and to all others it is not there."""

import copy
import gc

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.optim import optimizer as torch_optimizers

from surefoot.lora import ChainOfLora, RacConfig
from surefoot.lora.errors import ChainStateError


def chained(layers=1, **config):
    base = nn.Sequential(*[nn.Linear(12, 12) for _ in range(layers)])
    model = get_peft_model(base, LoraConfig(r=2, target_modules=[str(i) for i in range(layers)]))
    return ChainOfLora(model, RacConfig(steps_per_block=1, **config))


def step(chain):
    optimizer = torch.optim.SGD(chain.param_groups(0.1), lr=1.0)
    chain.model(torch.ones(2, 12)).pow(2).sum().backward()
    optimizer.step()
    return chain.step(optimizer)


def foreign_step():
    p = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([p], lr=0.1)
    p.sum().backward()
    optimizer.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.9))


@pytest.mark.parametrize("method", ["rac_lora", "relora", "fpft"])
def test_a_chain_whose_adapter_was_deleted_disturbs_nobody(method):
    chain = chained(method=method)
    optimizer = torch.optim.SGD(chain.param_groups(0.1), lr=1.0)
    chain.model(torch.ones(2, 12)).sum().backward()
    chain.model.delete_adapter("default")
    foreign_step()
    optimizer.step()
    with pytest.raises(ChainStateError, match=r"0: the adapter 'default' was deleted"):
        chain.step(optimizer)


USES = {
    "finish": lambda c, f: c.finish(),
    "end_block": lambda c, f: c.end_block(),
    "weight": lambda c, f: c.weight("0"),
    "export_adapter": lambda c, f: c.export_adapter(f),
    "export_merged": lambda c, f: c.export_merged(f),
    "state_dict": lambda c, f: c.state_dict(),
    "save": lambda c, f: c.save(f),
    "original": lambda c, f: c.original().__enter__(),
    "param_groups": lambda c, f: c.param_groups(0.1),
    "certificates": lambda c, f: c.certificates(L=1.0),
}


def test_a_chain_whose_adapter_was_deleted_says_so_when_it_is_used(tmp_path):
    chain = chained()
    step(chain)
    chain.model.delete_adapter("default")
    for name, use in USES.items():
        with pytest.raises(ChainStateError, match="was deleted"):
            use(chain, tmp_path)
            pytest.fail(name)


def test_a_chain_may_be_collected_within_a_step():
    held = [chained(), chained()]

    def collect(*_):
        held.clear()
        gc.collect()

    hook = torch_optimizers.register_optimizer_step_pre_hook(collect)
    held.append(chained())
    try:
        foreign_step()
    finally:
        hook.remove()
    assert not held


def test_hooks_do_not_pile_up():
    chained()
    before = len(torch_optimizers._global_optimizer_pre_hooks)
    chains = [chained() for _ in range(5)]
    assert len(torch_optimizers._global_optimizer_pre_hooks) == before
    assert all(step(chain) is not None for chain in chains)


def test_a_foreign_step_does_not_look_through_the_layers(monkeypatch):
    chain = chained(layers=3)
    foreign_step()
    monkeypatch.setattr(type(chain.layers[0]), "parameter", None)
    foreign_step()


def test_tensors_that_were_replaced_are_found():
    chain = chained()
    foreign_step()
    chain.model.set_adapter("default")
    module = chain.layers[0].module.lora_B["default"]
    module.weight = nn.Parameter(module.weight.detach().clone())
    assert step(chain).grad_norm2 is not None


@pytest.mark.parametrize("config", [{}, {"sketch": "gaussian", "precondition": True}])
def test_a_copy_of_a_chain_is_a_chain(config):
    torch.manual_seed(0)
    chain = chained(**config)
    twin = copy.deepcopy(chain)
    theirs, mine = step(twin), step(chain)
    assert theirs == mine
    assert mine.grad_norm2 is not None
