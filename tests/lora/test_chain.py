"""The restart protocol on a live PeftModel: what moves, what stays, what is refused."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from surefoot.lora import ChainOfLora, ChainStateError, RacConfig, UnsupportedLayerError


def copies(tensors):
    return [t.detach().clone() for t in tensors]


@pytest.mark.parametrize("method", ["rac_lora", "cola", "relora"])
def test_restart_changes_nothing_of_the_function(toys, method):
    chain, optimizer = toys.make(method=method)
    toys.train(chain, optimizer, 3)
    x, y = toys.batch(3)
    nn.functional.cross_entropy(chain.model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()
    before = chain.model(x)
    references = [chain.layers[0].parameter(s) for s in "AB"]
    addresses = [p.data_ptr() for p in references]
    assert chain.step(optimizer).block == 0
    torch.testing.assert_close(chain.model(x), before, rtol=1e-6, atol=1e-6)
    assert [p.data_ptr() for p in references] == addresses
    assert chain.layers[0].B.abs().max() == 0
    assert not any(layer.module.merged for layer in chain.layers)


def test_the_new_block_trains(toys):
    chain, optimizer = toys.make()
    reports = toys.train(chain, optimizer, 12)
    assert [r.block for r in reports] == [0, 1, 2]
    assert all(r.update_norm > 1e-3 for r in reports)
    assert [r.steps for r in reports] == [4, 4, 4]


@pytest.mark.parametrize("train", ["A", "B"])
def test_the_frozen_factor_keeps_its_bits(toys, train):
    chain, optimizer = toys.make(train=train)
    frozen = "A" if train == "B" else "B"
    before = copies(layer.parameter(frozen) for layer in chain.layers)
    toys.train(chain, optimizer, 3)
    now = [layer.parameter(frozen) for layer in chain.layers]
    assert all(torch.equal(a, b) for a, b in zip(now, before, strict=True))
    toys.train(chain, optimizer, 1)
    assert not any(torch.equal(a, b) for a, b in zip(now, before, strict=True))
    assert not any(p.requires_grad for p in now)


def test_only_restarted_state_is_forgotten(toys):
    chain, optimizer = toys.make(lora={"modules_to_save": ["head"]})
    toys.train(chain, optimizer, 3)
    assert len(optimizer.state) == 4  # two factors, weight and bias of the head
    moments = copies(optimizer.state[p]["exp_avg"] for p in chain.extras().values())
    x, y = toys.batch(3)
    nn.functional.cross_entropy(chain.model(x), y).backward()
    optimizer.step()
    moments = copies(optimizer.state[p]["exp_avg"] for p in chain.extras().values())
    chain.step(optimizer)
    assert len(optimizer.state) == 2
    kept = [optimizer.state[p]["exp_avg"] for p in chain.extras().values()]
    assert all(torch.equal(a, b) for a, b in zip(kept, moments, strict=True))


def test_state_survives_where_it_is_asked_to(toys):
    chain, optimizer = toys.make(reset_optimizer=False)
    toys.train(chain, optimizer, 4)
    assert len(optimizer.state) == 2


def test_relora_keeps_the_largest_moments(toys):
    chain, optimizer = toys.make(method="relora", prune=0.75)
    toys.train(chain, optimizer, 4)
    for layer in chain.layers:
        for side in "AB":
            parameter = layer.parameter(side)
            moment = optimizer.state[parameter]["exp_avg"]
            assert int((moment != 0).sum()) == moment.numel() - round(0.75 * moment.numel())


def test_lora_and_asymm_lora_never_restart(toys):
    for method, count in (("lora", 4), ("asymm_lora", 2)):
        chain, optimizer = toys.make(method=method)
        assert len(chain.trainable_parameters()) == count
        before = [layer.A.clone() for layer in chain.layers]
        assert toys.train(chain, optimizer, 9) == []
        moved = [not torch.equal(a, b.A) for a, b in zip(before, chain.layers, strict=True)]
        assert moved == [method == "lora"] * 2
        report = chain.finish()
        assert report.steps == 9
        with pytest.raises(ChainStateError, match=f"{method} has one block"):
            toys.train(chain, optimizer, 1)


def test_full_fine_tuning_goes_the_same_way(toys):
    plain = toys.mlp()
    for p in plain.parameters():
        p.requires_grad_(False)
    weights = [plain.first.weight.requires_grad_(), plain.second.weight.requires_grad_()]
    reference = torch.optim.AdamW(weights, lr=1e-2)
    chain, optimizer = toys.make(method="fpft")
    for i in range(5):
        x, y = toys.batch(i)
        nn.functional.cross_entropy(plain(x), y).backward()
        reference.step()
        reference.zero_grad()
    toys.train(chain, optimizer, 5)
    chain.finish()
    torch.testing.assert_close(chain.weight("first"), weights[0].detach(), rtol=0, atol=1e-6)
    assert sum(p.numel() for p in chain.trainable_parameters()) == 8 * 12 + 12 * 6


@pytest.mark.parametrize("train", ["alternate", "bernoulli(0.5)"])
def test_sides_change_and_stale_gradients_do_not_move_the_frozen_factor(toys, train):
    chain, _ = toys.make(train=train, steps_per_block=2)
    optimizer = torch.optim.AdamW(chain.trainable_parameters(), lr=1e-2, weight_decay=0.5)
    sides = []
    for i in range(16):
        frozen = "A" if chain.side == "B" else "B"
        before = copies(layer.parameter(frozen) for layer in chain.layers)
        x, y = toys.batch(i)
        nn.functional.cross_entropy(chain.model(x), y).backward()
        optimizer.step()
        now = copies(layer.parameter(frozen) for layer in chain.layers)
        assert all(torch.equal(a, b) for a, b in zip(now, before, strict=True))
        optimizer.zero_grad(set_to_none=False)
        report = chain.step(optimizer)
        if report:
            sides.append(report.trained)
    assert {"A", "B"} == set(sides)
    if train == "alternate":
        assert sides == ["B", "A"] * 4


def switch_on(chain):
    chain.model.set_adapter("default")


def off_and_on(chain):
    with chain.model.disable_adapter():
        pass


def modes(chain):
    chain.model.eval()
    chain.model.train()


def save(chain, folder):
    torch.save(chain.model.state_dict(), folder / "model.pt")
    chain.model.load_state_dict(torch.load(folder / "model.pt", weights_only=True))


@pytest.mark.parametrize("what", [switch_on, off_and_on, modes, save])
def test_peft_may_not_thaw_the_frozen_factor(toys, what, tmp_path):
    chain, optimizer = toys.make()
    # The worst case: an optimizer that holds the frozen factor as well.
    everything = [layer.parameter(s) for layer in chain.layers for s in "AB"]
    optimizer = torch.optim.AdamW(everything, lr=1e-2, weight_decay=0.1)
    toys.train(chain, optimizer, 2)
    before = copies(layer.A for layer in chain.layers)
    what(chain, tmp_path) if what is save else what(chain)
    toys.train(chain, optimizer, 1, start=2)
    assert all(torch.equal(a, layer.A) for a, layer in zip(before, chain.layers, strict=True))
    assert not any(layer.parameter("A").requires_grad for layer in chain.layers)


def test_a_frozen_factor_that_changed_stops_the_chain(toys):
    chain, optimizer = toys.make()
    toys.train(chain, optimizer, 1)
    chain.layers[1].parameter("A").data[0, 0] += 1e-3
    weights = copies(layer.weight for layer in chain.layers)
    with pytest.raises(ChainStateError, match="second: the frozen factor lora_A has changed"):
        toys.train(chain, optimizer, 1)
    with pytest.raises(ChainStateError, match="frozen factor"):
        chain.finish()
    assert all(torch.equal(a, b.weight) for a, b in zip(weights, chain.layers, strict=True))


def test_swapping_two_entries_of_the_frozen_factor_is_seen(toys):
    chain, optimizer = toys.make()
    a = chain.layers[0].parameter("A").data
    a[0, [0, 1]] = a[0, [1, 0]]
    with pytest.raises(ChainStateError, match="frozen factor"):
        toys.train(chain, optimizer, 1)


def test_a_hand_set_trained_factor_is_legal(toys):
    chain, _ = toys.make()
    b = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    w = chain.weight("first")
    chain.layers[0].parameter("B").data.copy_(b)
    torch.testing.assert_close(chain.weight("first"), w + 2.0 * b @ chain.layers[0].A)
    chain.finish()
    torch.testing.assert_close(
        chain.layers[0].weight.data, w + 2.0 * b @ chain.history.blocks[0].factors["first", "A"]
    )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_factor_that_is_not_finite_touches_no_base(toys, bad):
    chain, _ = toys.make()
    chain.layers[0].parameter("B").data.fill_(0.1)
    chain.layers[1].parameter("B").data[0, 0] = bad
    weights = copies(layer.weight for layer in chain.layers)
    with pytest.raises(ChainStateError, match="second: a factor holds NaN"):
        chain.end_block()
    assert all(torch.equal(a, b.weight) for a, b in zip(weights, chain.layers, strict=True))


def test_finish_twice_and_the_plan(toys):
    chain, optimizer = toys.make(blocks=2)
    toys.train(chain, optimizer, 8)
    with pytest.warns(UserWarning, match="plan was 2 blocks"):
        toys.train(chain, optimizer, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toys.train(chain, optimizer, 1)
    assert chain.finish().steps == 2
    weights = copies(layer.weight for layer in chain.layers)
    assert chain.finish() is None
    assert all(torch.equal(a, b.weight) for a, b in zip(weights, chain.layers, strict=True))


def test_epoch_blocks_end_when_told(toys):
    chain, optimizer = toys.make(steps_per_block="epoch")
    assert toys.train(chain, optimizer, 7) == []
    assert chain.end_block(optimizer).steps == 7


def test_warmup_multiplies_the_schedule_and_leaves_it_alone(toys):
    chain, _ = toys.make(warmup_steps_per_block=3)
    optimizer = torch.optim.SGD(chain.trainable_parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    with pytest.raises(ValueError, match="call chain.attach"):
        toys.train(chain, optimizer, 1)
    chain.attach(optimizer)
    seen = []
    optimizer.register_step_pre_hook(lambda *_: seen.append(optimizer.param_groups[0]["lr"]))
    for i in range(5):
        toys.train(chain, optimizer, 1, start=i)
        schedule.step()
    torch.testing.assert_close(
        torch.tensor(seen),
        torch.tensor([1, 0.5, 0.25, 0.125, 0.0625]) * torch.tensor([1, 2, 3, 4, 1]) / 4,
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5**5)


def test_same_seed_same_bits_and_layers_of_one_shape_differ(toys):
    runs = []
    for seed in (5, 5, 6):
        chain, optimizer = toys.make(seed=seed, model=toys.mlp(sizes=(8, 8, 8)))
        assert not torch.equal(chain.layers[0].A, chain.layers[1].A)
        toys.train(chain, optimizer, 8)
        runs.append(chain.weight("first"))
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_per_layer_learning_rates(toys):
    lora = {"rank_pattern": {"second": 4}, "modules_to_save": ["head"]}
    chain, _ = toys.make(lora=lora, train="alternate")
    groups = {g["name"]: g for g in chain.param_groups(gamma=0.5)}
    assert groups["first"]["lr"] == pytest.approx(0.5 / (4 / 2) ** 2)
    assert groups["second"]["lr"] == pytest.approx(0.5 / (4 / 4) ** 2)
    assert groups["extras"]["lr"] == 0.5
    assert [len(groups[k]["params"]) for k in ("first", "second", "extras")] == [2, 2, 2]
    with pytest.raises(ValueError, match="gamma must be positive"):
        chain.param_groups(gamma=0.0)


def test_embedding_rows_are_chained_too(toys):
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.emb = nn.Embedding(20, 6)
            self.out = nn.Linear(6, 2)

        def forward(self, i):
            return self.out(self.emb(i).mean(1))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Bag().double()
    tokens = torch.randint(20, (5, 7), generator=torch.Generator().manual_seed(0))
    before = model.emb.weight.detach().clone()
    model(tokens).square().sum().backward()
    g = model.emb.weight.grad.clone().T
    for train in ("A", "B"):
        with torch.no_grad():
            model.emb.weight.copy_(before)
        peft_model = get_peft_model(model, LoraConfig(r=3, lora_alpha=6, target_modules=["emb"]))
        chain = ChainOfLora(peft_model, RacConfig(steps_per_block=1, train=train))
        layer = chain.layers[0]
        assert (layer.m, layer.n) == (6, 20)
        frozen = (layer.A if train == "B" else layer.B).clone()
        optimizer = torch.optim.SGD(chain.param_groups(gamma=0.2), lr=1.0)
        peft_model(tokens).square().sum().backward()
        optimizer.step()
        chain.step(optimizer)
        expected = before.T - 0.2 * (
            g @ frozen.T @ frozen if train == "B" else frozen @ frozen.T @ g
        )
        torch.testing.assert_close(chain.weight("emb"), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(layer.weight.data.T, expected, rtol=0, atol=1e-12)
        with pytest.warns(UserWarning, match="unload after a merge"):
            model = peft_model.unload()
        model.requires_grad_(True)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps_per_block": 0}, "steps_per_block must be at least 1"),
        ({"steps_per_block": "day"}, "steps_per_block"),
        ({"blocks": 0}, "blocks must be a whole number of at least 1, got 0"),
        ({"method": "dora"}, "method must be one of"),
        ({"train": "C"}, "train must be"),
        ({"train": "bernoulli(2)"}, "p between 0 and 1"),
        ({"sketch": "sobol"}, "sketch must be one of"),
        ({"sketch_std": 0.0}, "sketch_std"),
        ({"merge_dtype": "int8"}, "merge_dtype must be one of"),
        ({"keep_history": "all"}, "keep_history must be one of"),
        ({"on_quantized": "round"}, "on_quantized must be one of"),
        ({"warmup_steps_per_block": -1}, "warmup"),
        ({"prune": 1.5}, "prune"),
        ({"companion_rank": 0}, "companion_rank"),
        ({"method": "asymm_lora", "train": "alternate"}, "keeps one side"),
        ({"method": "cola", "precondition": True}, "one frozen factor"),
    ],
)
def test_bad_configuration(change, message):
    with pytest.raises(ValueError, match=message):
        RacConfig(**change)


@pytest.mark.parametrize(
    ("train", "r", "message"),
    [
        ("B", 9, "first: rank must be between 1 and n = 8 for train='B', got 9"),
        ("A", 7, "second: rank must be between 1 and m = 6"),
        ("alternate", 7, r"second: rank must be between 1 and min\(m, n\) = 6"),
    ],
)
def test_rank_above_the_sampled_dimension(toys, train, r, message):
    with pytest.raises(ValueError, match=message):
        toys.make(lora={"r": r}, train=train)


def test_rank_sixteen_on_a_ten_by_sixty_four_weight(toys):
    model = toys.mlp(sizes=(64, 10, 10))
    chain, _ = toys.make(lora={"r": 16, "target_modules": ["first"]}, model=model, train="B")
    assert float(chain.lambda_min()) == 16 / 64


def test_unsupported_layers_are_named(toys):
    with pytest.raises(UnsupportedLayerError, match="first.*DoRA"):
        toys.make(lora={"use_dora": True})
    with pytest.raises(UnsupportedLayerError, match="first.*lora_bias"):
        toys.make(lora={"lora_bias": True})
    tied = toys.mlp(sizes=(8, 8, 8))
    tied.second.weight = tied.first.weight
    for targets in (["first", "second"], ["first"]):
        with pytest.raises(UnsupportedLayerError, match="first: its weight is tied"):
            toys.make(lora={"target_modules": targets}, model=tied)
        tied = toys.mlp(sizes=(8, 8, 8))
        tied.second.weight = tied.first.weight
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2))
    with pytest.warns(UserWarning, match="groups > 1"):
        grouped = get_peft_model(grouped, LoraConfig(r=2, target_modules=["0"]))
    with pytest.raises(UnsupportedLayerError, match="0 .*groups"):
        ChainOfLora(grouped)
    attention = nn.Sequential(nn.MultiheadAttention(8, 2))
    with pytest.raises(UnsupportedLayerError, match="0 .*MultiheadAttention"):
        ChainOfLora(get_peft_model(attention, LoraConfig(r=2, target_modules=["0"])))
    parameters = get_peft_model(toys.mlp(), LoraConfig(r=2, target_parameters=["first.weight"]))
    with pytest.raises(UnsupportedLayerError, match="first .*ParamWrapper"):
        ChainOfLora(parameters)


def test_adapters_in_the_wrong_state(toys):
    peft_model = toys.wrapped()
    with pytest.raises(ValueError, match="no LoRA layer with adapter 'other'"):
        ChainOfLora(peft_model, adapter_name="other")
    peft_model.add_adapter("other", LoraConfig(r=2, target_modules=["first", "second"]))
    with pytest.raises(ChainStateError, match="exactly the adapter 'other' must be active"):
        ChainOfLora(peft_model, adapter_name="other")
    peft_model.base_model.set_adapter(["default", "other"])
    with pytest.raises(ChainStateError, match="active are"):
        ChainOfLora(peft_model)
    merged = toys.wrapped()
    merged.merge_adapter()
    with pytest.raises(ChainStateError, match="merged already"):
        ChainOfLora(merged)
    trained = toys.wrapped(init_lora_weights=False)
    with pytest.raises(ChainStateError, match="not at zero"):
        ChainOfLora(trained)


def test_the_loop_is_checked(toys):
    chain, _ = toys.make()
    short = torch.optim.AdamW([chain.layers[0].parameter("B")])
    with pytest.raises(ValueError, match="does not hold second.lora_B"):
        toys.train(chain, short, 1)
    chain, optimizer = toys.make(steps_per_block=None)
    with pytest.raises(ValueError, match="steps_per_block must be given"):
        toys.train(chain, optimizer, 1)
    chain, optimizer = toys.make()
    chain.model.merge_adapter()
    with pytest.raises(ChainStateError, match="is merged"):
        chain.step(optimizer)
    with pytest.raises(ValueError, match="no adapted layer 'third'; there are: first, second"):
        chain.weight("third")
