"""LOZO on a base in blocks takes the steps that it takes on the unpacked model."""

import copy

import pytest
import torch
from torch import nn

pytest.importorskip("gguf", reason="needs the llm extra")
pytest.importorskip("transformers", reason="needs the llm extra")

from tests.zeroth_order.gguf_files import Q4_1, Q8_0, write
from tests.zeroth_order.test_quantised import ids, unpacked

from surefoot.data.quantised.weight import BlockWeight
from surefoot.zeroth_order import LOZO, MeZO, replay
from surefoot.zeroth_order.hooks import linear_like
from surefoot.zeroth_order.quantised import load_gguf

SETTINGS = {"lr": 1e-3, "rank": 2, "nu": 3, "scale": "unit", "fold": False, "seed": 5}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    path = write(
        tmp_path_factory.mktemp("gguf") / "tiny.gguf", Q4_1, kinds={"token_embd.weight": Q8_0}
    )
    return load_gguf(path), unpacked(path)


@pytest.fixture
def pair(models):
    return [copy.deepcopy(model) for model in models]


def closure_of(model):
    x = ids(3, 8)

    def closure():
        logits = model(input_ids=x, use_cache=False).logits
        return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())

    return closure


def run(model, steps, **more):
    optimizer = LOZO(model, **{**SETTINGS, **more})
    c = []
    for _ in range(steps):
        optimizer.step(closure_of(model))
        c.append(optimizer.last["c"])
    return optimizer, c


def test_the_same_steps_as_on_the_unpacked_model(pair):
    (ours, c), (theirs, d) = (run(model, 8) for model in pair)
    assert c == d
    for a, b in zip(ours.tensors, theirs.tensors, strict=True):
        assert (a.name, a.storage, a.rank) == (b.name, b.storage, b.rank)
    mine, other = ours.adapter(), theirs.adapter()
    assert mine.keys() == other.keys()
    for name in mine:
        for (b1, v1), (b2, v2) in zip(mine[name], other[name], strict=True):
            assert torch.equal(b1, b2)
            assert torch.equal(v1, v2)
    norms = {n: p for n, p in pair[0].named_parameters() if p.ndim < 2}
    others = dict(pair[1].named_parameters())
    assert norms
    assert all(torch.equal(p, others[n]) for n, p in norms.items())


def test_blocks_stay_as_they_are_and_the_check_of_the_first_step_passes(models):
    model = copy.deepcopy(models[0])
    before = {
        n: [x.clone() for x in p.packed()]
        for n, p in model.named_parameters() if isinstance(p, BlockWeight)
    }  # fmt: skip
    for seed in range(6):
        optimizer, _ = run(model, 2, seed=seed)
        hooked = [x for x in optimizer.tensors if x.storage == "hooked"]
        assert {x.name for x in hooked} == set(before)
        for tensor in optimizer.tensors:
            tensor.unhook()
    for name, packed in before.items():
        assert all(map(torch.equal, packed, model.get_parameter(name).packed()))


def test_a_planted_hook_that_misses_is_found(models):
    model = copy.deepcopy(models[0])
    optimizer = LOZO(model, **SETTINGS)
    for tensor in optimizer.tensors:
        if tensor.storage == "hooked":
            # Fires, and adds nothing.
            tensor.factors = list
    with pytest.raises(ValueError, match="stays quantised: it cannot be perturbed by a hook"):
        optimizer.step(closure_of(model))


def test_a_read_outside_its_module_is_refused(models):
    model = copy.deepcopy(models[0])
    weight = model.model.layers[0].self_attn.q_proj.weight
    for read in (lambda h: nn.functional.linear(h, weight), lambda h: h @ weight):
        optimizer = LOZO(model, **SETTINGS)
        plain = closure_of(model)

        def closure(plain=plain, read=read):
            return plain() + read(torch.ones(1, weight.shape[1])).sum()

        with pytest.raises(ValueError, match="q_proj.weight stays quantised: it is read outside"):
            optimizer.step(closure)
        for tensor in optimizer.tensors:
            tensor.unhook()


def test_resume_goes_on_bitwise(models):
    whole, first, second = (copy.deepcopy(models[0]) for _ in range(3))
    _, c = run(whole, 8)
    optimizer, _ = run(first, 4)
    state = copy.deepcopy(optimizer.state_dict())
    norms = {n: p.detach().clone() for n, p in first.named_parameters() if p.ndim < 2}
    second.load_state_dict(norms, strict=False)
    resumed = LOZO(second, **SETTINGS)
    resumed.load_state_dict(state)
    found = []
    for _ in range(4):
        resumed.step(closure_of(second))
        found.append(resumed.last["c"])
    assert found == c[4:]


def test_replay_from_the_log_and_another_base_is_refused(models):
    model, again, other = (copy.deepcopy(models[0]) for _ in range(3))
    optimizer, _ = run(model, 7, log=True)
    trained = closure_of(model)()
    assert trained != closure_of(again)()
    replay(again, optimizer.log)
    assert torch.equal(closure_of(again)(), trained)
    other.model.layers[0].mlp.up_proj.weight.quants[0, 0, 0] ^= 1
    with pytest.raises(ValueError, match="not the base of this log"):
        replay(other, optimizer.log)


def test_replay_of_kept_factors_on_the_unpacked_model(pair):
    model, again = pair[1], copy.deepcopy(pair[1])
    optimizer, _ = run(model, 7, log=True)
    replay(again, optimizer.log)
    # Here they are folded: a plain model comes back.
    assert not any(m._forward_hooks for m in again.modules())
    assert torch.allclose(closure_of(again)(), closure_of(model)(), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda m: LOZO(m, 1e-3), "fold must be False"),
        (lambda m: LOZO(m, 1e-3, fold=False, weight_decay=0.1), "weight_decay must be 0"),
        (lambda m: LOZO([{"params": m.parameters(), "weight_decay": 0.1}], 1e-3, fold=False, model=m),
         "weight_decay must be 0 where weights stay quantised"),
        (lambda m: LOZO(m, 1e-3, mode="inplace"), "mode must be 'factored'"),
        (lambda m: MeZO(m, 1e-3), "mode must be 'factored'"),
        (lambda m: MeZO(m, 1e-3, mode="factored", fold=False), "its rank must be at least 1"),
        (lambda m: LOZO(m, 1e-3, rank=64, fold=False), "its rank must be at least 1"),
    ],
)  # fmt: skip
def test_what_would_write_weights_is_refused(models, make, match):
    with pytest.raises(ValueError, match=match):
        make(copy.deepcopy(models[0]))


def test_what_needs_numbers_is_refused(models):
    model = copy.deepcopy(models[0])
    optimizer = LOZO(model, **SETTINGS)
    with pytest.raises(ValueError, match="stays quantised: it has no gradient"):
        optimizer.measure_gradient(closure_of(model))
    optimizer.step(closure_of(model))
    with pytest.raises(ValueError, match="stays quantised: factors cannot be folded"):
        optimizer.flush()
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(ValueError, match="weight_decay"):
        for _ in range(3):
            optimizer.step(closure_of(model))


# -- modules that are linear by their form ------------------------------------------------------------------


class Packed(nn.Module):
    """Somebody's int8 linear module: numbers in buffers, the weight a shape."""

    def __init__(self, linear, factor=1.0):
        super().__init__()
        self.out_features, self.in_features = linear.weight.shape
        self.register_buffer("scale", linear.weight.detach().abs().amax(1, keepdim=True) / 127)
        self.register_buffer("q", (linear.weight.detach() / self.scale).round().to(torch.int8))
        self.weight = nn.Parameter(torch.empty(linear.weight.shape, device="meta"))
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())
        self.factor = factor

    def forward(self, x):
        return nn.functional.linear(x * self.factor, self.q * self.scale, self.bias)


class Squared(Packed):
    def forward(self, x):
        return super().forward(x) ** 2


class Renamed(nn.Module):
    """No in_features and out_features: it must be registered."""

    def __init__(self, linear):
        super().__init__()
        self.inner = [Packed(linear)]
        self.register_buffer("q", self.inner[0].q)
        self.weight = self.inner[0].weight

    def forward(self, x):
        return self.inner[0](x)


def net(kind):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), kind(nn.Linear(8, 4, bias=False)))


def test_a_packed_module_of_another_library_is_hooked():
    model = net(Packed)
    # The same function with a weight that can be written.
    twin = copy.deepcopy(model)
    twin[2] = nn.Linear(8, 4, bias=False)
    twin[2].weight.data = model[2].q * model[2].scale
    x = torch.randn(5, 6)
    found = []
    for each in (model, twin):
        optimizer = LOZO(each, 0.01, rank=2, nu=4, fold=False)
        for _ in range(6):
            optimizer.step(lambda each=each: each(x).square().mean())
        found.append((optimizer.last["c"], each(x)))
        assert [t.storage for t in optimizer.tensors if t.rank] == ["hooked", "hooked"]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_what_is_not_linear_is_not_hooked():
    with pytest.raises(ValueError, match="read by a module that cannot be hooked"):
        LOZO(net(Squared), 0.01, fold=False)
    with pytest.raises(ValueError, match="read by a module that cannot be hooked"):
        LOZO(net(Renamed), 0.01, fold=False)


def test_a_registered_class_is_hooked_and_tried():
    class Mine(Renamed):
        pass

    class Wrong(Renamed):
        def forward(self, x):
            return super().forward(x) + 1

    assert linear_like(Mine) is Mine
    linear_like(Wrong)
    optimizer = LOZO(net(Mine), 0.01, fold=False)
    assert [t.storage for t in optimizer.tensors if t.rank] == ["hooked", "hooked"]
    with pytest.raises(ValueError, match=r"Wrong was registered .* its output at zero must be"):
        LOZO(net(Wrong), 0.01, fold=False)
    for bad in (Mine(nn.Linear(2, 2)), int, "Linear"):
        with pytest.raises(TypeError, match="class of nn.Module"):
            linear_like(bad)


def test_a_linear_of_ones_own_is_hooked_and_a_scaled_one_is_written():
    class Own(nn.Linear):
        def forward(self, x):
            return x @ self.weight.T + self.bias

    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    x = torch.randn(5, 6)
    for kind, storage in ((Own, "hooked"), (Scaled, "written")):
        model = nn.Sequential(nn.Linear(6, 8), kind(8, 4))
        optimizer = LOZO(model, 0.01)
        assert optimizer.tensors[2].storage == storage
        optimizer.step(lambda model=model: model(x).square().mean())
        assert optimizer.tensors[2].storage == storage


def test_a_meta_weight_without_numbers_anywhere():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4, device="meta"))
    with pytest.raises(ValueError, match="meta device .* no buffers"):
        LOZO(model, 0.01, fold=False)
