"""All copies of a step in one forward: the steps of two forwards, or two forwards and a word about why."""

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.zeroth_order.nets import flat, network, problem
from torch import nn

from surefoot import Record
from surefoot.zeroth_order import LOZO, MeZO, PairedWarning, StepLog, replay
from surefoot.zeroth_order._engine.paired import pairing, products, serving
from surefoot.zeroth_order._engine.paired.copies import Copies, repeated, rows_of
from surefoot.zeroth_order._engine.paired.losses import SplitLosses
from surefoot.zeroth_order._engine.self_check import HookWarning


def mse(model):
    return lambda batch: F.mse_loss(model(batch[0]), batch[1])


@pytest.fixture(autouse=True)
def _own_draws():
    with torch.random.fork_rng(devices=[]):
        yield


def both(make, closure, batch, steps=4, paired=True, lr=0.01, **settings):
    """The same steps with copies apart and together."""
    found = []
    for how in (False, paired):
        torch.manual_seed(0)
        model = make()
        optimizer = LOZO(model, lr, **({"nu": 3, "scale": "unit"} | settings))
        for _ in range(steps):
            optimizer.step(closure(model), batch, paired=how)
        found.append((model, optimizer))
    return found


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"momentum": 0.9}, {"num_directions": 3}, {"num_directions": 3, "copies_at_once": 3},
        {"num_directions": 2, "one_sided": True}, {"num_directions": 3, "leave_one_out": True},
        {"fold": False}, {"rank": 20},
    ],
)  # fmt: skip
def test_the_same_steps_in_double(settings):
    (one, a), (two, b) = both(network, mse, problem(), **settings)
    assert b.last["how"].startswith("one forward of")
    assert a.last["how"] == "two forwards: paired=False"
    torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-10)
    for tensor in b.tensors:
        assert tensor.copies is None
        assert tensor.shown is tensor.b


def test_without_a_batch_nothing_is_changed():
    one, two = network(), network()
    a, b = LOZO(one, 0.01, log=True), LOZO(two, 0.01, log=True)
    batch = problem()
    for _ in range(3):
        a.step(lambda: mse(one)(batch))
        b.step(mse(two), batch, paired=False)
    assert torch.equal(flat(one), flat(two))
    assert "paired" not in a.log.header
    assert b.log.header["paired"] is False
    assert "how" not in a.last


@pytest.mark.parametrize("of", ["tensor", "dict", "list"])
def test_batches_of_every_kind(of):
    x, _ = problem()
    batch = {"tensor": x, "dict": {"x": x, "name": "a"}, "list": [x, 3]}[of]
    read = {"tensor": lambda b: b, "dict": lambda b: b["x"], "list": lambda b: b[0]}[of]

    def closure(model):
        return lambda batch: model(read(batch)).square().mean(1)  # one loss a row

    (one, _), (two, b) = both(network, closure, batch)
    assert b.last["how"].startswith("one forward")
    torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-10)


def test_copies_come_one_after_the_other():
    x = torch.arange(6).view(3, 2)
    found = repeated({"x": x, "weights": torch.ones(5), "n": 7}, 2, 3)
    assert torch.equal(found["x"], torch.cat([x, x]))
    assert found["weights"].shape == (5,)
    assert found["n"] == 7
    assert rows_of([x, x, torch.ones(5)]) == 3


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_taken_apart(reduction):
    copies, generator = Copies(), torch.Generator().manual_seed(0)
    copies.k, copies.rows = 3, 4
    logits = torch.randn(12, 5, generator=generator)
    labels = torch.randint(0, 5, (12,), generator=generator)
    labels[::5] = -100
    weight = torch.rand(5, generator=generator)
    target, rows = torch.rand(12, 5, generator=generator), torch.rand(12, 5, generator=generator)
    calls = [
        (F.cross_entropy, (logits, labels), {"label_smoothing": 0.1, "weight": weight}),
        (F.nll_loss, (logits, labels), {}),
        (F.mse_loss, (logits, target), {}),
        (F.l1_loss, (logits, target), {}),
        (F.smooth_l1_loss, (logits, target), {}),
        (F.binary_cross_entropy_with_logits, (logits, target), {"weight": rows}),
        (F.binary_cross_entropy_with_logits, (logits, target), {"pos_weight": weight}),
        (F.kl_div, (logits, target), {}),
    ]
    for function, (x, y), more in calls:
        if function is F.kl_div and reduction == "mean":
            reduction = "batchmean"
        with SplitLosses(copies):
            found = function(x, y, reduction=reduction, **more)
        for k, each in enumerate(found):
            part = slice(4 * k, 4 * k + 4)
            mine = {n: v[part] if v is rows else v for n, v in more.items()}
            expected = function(x[part], y[part], reduction=reduction, **mine)
            torch.testing.assert_close(each, expected, equal_nan=True)


# -- what cannot share a forward --------------------------------------------------------------------------


class Mixing(nn.Module):
    """Centres its batch."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(9, 8), nn.Linear(8, 1)

    def forward(self, x):
        y = self.a(x)
        return self.b(torch.tanh(y - y.mean(0)) ** 2)


class Outside(nn.Module):
    """Reads a weight of its own that no module of its serves."""

    def __init__(self):
        super().__init__()
        self.a, self.free = nn.Linear(9, 8), nn.Parameter(torch.ones(8))

    def forward(self, x):
        return (self.a(x) * self.free).sum(1, keepdim=True)


class TimeFirst(nn.Module):
    """Moves its batch to dimension 1."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.view(len(x), 3, 3).transpose(0, 1)))).mean(0)


def seeded(kind):
    def make():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind().double()

    return make


REFUSED = [
    (seeded(Mixing), mse, "something in the model or the closure mixes the rows"),
    (seeded(Outside), mse, "free is read by the whole model itself"),
    (seeded(TimeFirst), mse, "dimension 0 does not hold the 2 x 30 rows"),
    (
        seeded(lambda: nn.Sequential(nn.Linear(9, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))), mse,
        "1 normalises over its batch",
    ),
    (
        seeded(lambda: nn.Sequential(nn.Linear(9, 8), nn.Dropout(0.5), nn.Linear(8, 1))), mse,
        r"draws random numbers \(dropout\).*model.eval\(\) first",
    ),
    (network, lambda m: lambda b: (m(b[0]) - b[1]).square().mean(), "returned one number for 2 copies"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "closure", "why"), REFUSED)
def test_what_cannot_share_a_forward_has_two(make, closure, why):
    batch = problem()
    with pytest.warns(PairedWarning, match=why) as told:
        (one, _), (two, b) = both(make, closure, batch, paired="auto")
    assert len([w for w in told if w.category is PairedWarning]) == 1
    assert b.last["how"].startswith("two forwards: ")
    assert torch.equal(flat(one), flat(two))
    with pytest.raises(ValueError, match=f"paired=True is impossible here: .*({why})"):
        model = make()
        LOZO(model, 0.01).step(closure(model), batch, paired=True)


def test_refusals_by_name():
    batch, model = problem(), network()
    for make, given, says in [
        (lambda: LOZO(model, 0.1, mode="inplace"), batch, "needs mode 'factored'"),
        (lambda: MeZO(list(model.parameters())), batch, "it needs the model"),
        (lambda: LOZO(model, 0.1), (object(), *batch), "the batch holds a object"),
        (lambda: LOZO(model, 0.1), [3.0], "no tensor with rows"),
    ]:
        optimizer = make()
        with pytest.raises(ValueError, match=says):
            optimizer.step(lambda _: mse(model)(batch), given, paired=True)
        with pytest.warns(PairedWarning, match=says):
            optimizer.step(lambda _: mse(model)(batch), given)
        for tensor in optimizer.tensors:
            tensor.unhook()
    optimizer = LOZO(model, 0.1)
    with pytest.raises(ValueError, match="paired=True needs batch="):
        optimizer.step(lambda: 0.0, paired=True)
    with pytest.raises(ValueError, match="paired must be"):
        optimizer.step(mse(model), batch, paired="always")
    for settings, says in [
        ({"precision": "int8"}, "precision must be"),
        ({"precision": "bfloat16"}, "for weights of 16 or 32 bits, got float64"),
        ({"precision": "bfloat16", "mode": "inplace"}, "needs mode 'factored'"),
        ({"precision": "bfloat16", "one_sided": True}, "needs the central difference"),
        ({"copies_at_once": 0}, "copies_at_once must be"),
        ({"rank_cap": 4}, "rank_cap is for fold=False"),
        ({"rank_cap": 2.5, "fold": False}, "rank_cap must be"),
    ]:
        with pytest.raises(ValueError, match=says):
            LOZO(network(), 0.1, **settings)
    with pytest.raises(ValueError, match="mode 'factored'"):
        LOZO(model, 0.1, mode="inplace").quality(mse(model), batch)


def test_a_closure_that_calls_backward_has_two_forwards():
    def closure(model):
        def loss(batch):
            found = F.mse_loss(model(batch[0]), batch[1])
            found.backward()
            return found

        return loss

    model = network()
    optimizer = LOZO(model, 0.01)
    with pytest.warns(UserWarning, match=r"calls backward\(\)"):
        optimizer.step(closure(model), problem())
    assert "backward" in optimizer.last["how"]


def test_an_error_leaves_every_weight_and_no_copies():
    model, batch = network(), problem()
    optimizer = LOZO(model, 0.01, nu=3)
    for _ in range(4):
        optimizer.step(mse(model), batch, paired=True)
    before, t = flat(model), optimizer.t

    def fails(given):
        F.mse_loss(model(given[0]), given[1])
        raise KeyError("mine")

    for paired in (True, "auto"):
        with pytest.raises(KeyError, match="mine"):
            optimizer.step(fails, batch, paired=paired)
        assert optimizer.engine.pairing.forward.copies.k == 0
        assert torch.equal(flat(model), before)
        assert all(x.copies is None for x in optimizer.tensors)
        assert all("forward" not in vars(m) for m in model.modules())
    assert optimizer.t == t
    optimizer.step(mse(model), batch)


def test_what_moves_may_change_and_a_copy_goes_on():
    models, batch, ends = [network(), network()], problem(), []
    optimizers = [LOZO(m, 0.01, nu=2) for m in models]
    for t in range(6):
        for model, optimizer, paired in zip(models, optimizers, (False, True), strict=True):
            model[3].bias.requires_grad_(t not in (2, 3))
            model[2].weight.requires_grad_(t < 4)
            optimizer.param_groups[0]["rank"] = 2 if t < 4 else 1
            optimizer.step(mse(model), batch, paired=paired)
    torch.testing.assert_close(flat(models[0]), flat(models[1]), rtol=0, atol=1e-10)
    for _ in range(2):
        model, optimizer = copy.deepcopy((models[1], optimizers[1]))
        optimizer.step(mse(model), batch, paired=True)
        ends.append(flat(model))
    assert torch.equal(*ends)


def test_nan_in_one_copy_is_a_skipped_step():
    model, batch = network(), problem()
    optimizer = LOZO(model, 0.01, nu=50)
    optimizer.step(mse(model), batch, paired=True)
    before = flat(model)

    def closure(given):
        found = F.mse_loss(model(given[0]), given[1])
        return found * torch.tensor([1.0, float("nan")]) if found.ndim else found

    with pytest.warns(UserWarning, match="step 1 was skipped"):
        optimizer.step(closure, batch, paired=True)
    assert optimizer.skipped == 1
    assert torch.equal(flat(model), before)


class Fault(serving.Added):
    """Adds the last bias twice."""

    def __call__(self, module, args, kwargs, y):
        if self.tensor.name == "3.bias":
            y = super().__call__(module, args, kwargs, y)
        return super().__call__(module, args, kwargs, y)


def test_a_module_that_serves_wrongly_is_found_and_called_once_a_copy(monkeypatch):
    monkeypatch.setattr(serving, "Added", Fault)
    (one, _), (two, b) = both(network, mse, problem())
    assert list(b.engine.pairing.forward.plan.apart) == [two[3]]
    torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-10)


class Norm(nn.Module):
    """Of Gemma's kind: multiplies by 1 + w."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8))

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


def test_norms_are_served_by_their_product_or_called_once_a_copy():
    class Plain(Norm):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight

    for kind, apart in ((Norm, True), (Plain, False)):
        make = seeded(lambda kind=kind: nn.Sequential(nn.Linear(9, 8), kind(), nn.Linear(8, 1)))
        (one, _), (two, b) = both(make, mse, problem())
        assert (two[1] in b.engine.pairing.forward.plan.apart) is apart
        torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-10)
    # A weight that comes near 0 is divided by no more, for as long as it is there.
    for value, apart in ((1e-9, True), (1.0, False)):
        with torch.no_grad():
            two[1].weight[0] = value
        b.tensors[2].reread(forget=False)
        b.step(mse(two), problem(), paired=True)
        assert (two[1] in b.engine.pairing.forward.used.apart) is apart
        assert np.isfinite(b.last["c"])


class Positions(nn.Module):
    """Words and positions; as many positions as all copies have rows, where wanted."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(11, 6), nn.Embedding(9, 6)
        self.mix, self.out = nn.Linear(6, 6), nn.Linear(6, 1)

    def forward(self, ids):
        at = torch.arange(ids.shape[1])
        y = self.words(ids) + self.places(at) + self.mix(self.places(at.unsqueeze(0)))
        return self.out(torch.tanh(y)).mean(1)


@pytest.mark.parametrize("length", [5, 8])
def test_positions_that_no_copy_has_of_its_own(length):
    ids = torch.randint(0, 11, (4, length), generator=torch.Generator().manual_seed(0))
    y = torch.zeros(4, 1, dtype=torch.float64)
    (one, _), (two, b) = both(seeded(Positions), mse, (ids, y))
    assert b.last["how"].startswith("one forward")
    torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-10)


# -- choosing, going on, replaying ------------------------------------------------------------------------


@pytest.mark.parametrize("faster", [True, False])
def test_auto_takes_what_was_timed_to_be_faster(faster, monkeypatch):
    ticks = iter(range(10**6))
    # Forwards apart lie between the first two readings, the one together between the last two.
    lengths = [0, 5, 5, 5 + (1 if faster else 9)]

    def clock(tensors):
        base = 100 * next(ticks)
        readings = iter(base + x for x in lengths)
        return lambda: next(readings)

    monkeypatch.setattr(pairing, "clock_of", clock)
    model, batch = network(), problem()
    optimizer = LOZO(model, 0.01, nu=3)
    for _ in range(5):
        optimizer.step(mse(model), batch)
    assert optimizer.last["how"].startswith(
        "one forward" if faster else "two forwards: faster here"
    )
    state = optimizer.state_dict()
    other = network()
    other.load_state_dict(model.state_dict())
    again = LOZO(other, 0.01, nu=3)
    again.load_state_dict(state)
    for _ in range(4):
        optimizer.step(mse(model), batch)
        again.step(mse(other), batch)
    assert torch.equal(flat(model), flat(other))


def test_replay_and_resume_of_steps_in_one_forward(tmp_path):
    model, batch = network(torch.float32), problem(torch.float32)
    base = copy.deepcopy(model)
    optimizer = LOZO(model, 0.01, nu=4, log=str(tmp_path / "run.zo"))
    for t in range(10):
        optimizer.estimate(mse(model), batch, paired=True)
        if t % 2:
            optimizer.estimate(mse(model), [x[:9] for x in batch], paired=True)
        optimizer.apply()
    optimizer.flush()
    found = replay(base, StepLog.load(tmp_path / "run.zo"))
    assert torch.equal(flat(found), flat(model))


# -- few bits ---------------------------------------------------------------------------------------------


def wide(dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(32, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 5)
        ).to(dtype)  # fmt: skip


def labelled(dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(16, 32, generator=generator).to(dtype)
    return x, torch.randint(0, 5, (16,), generator=generator)


def cross_entropy(model):
    return lambda batch: F.cross_entropy(model(batch[0]).float(), batch[1])


def test_rounding_of_products_cancels_in_a_pair(monkeypatch):
    monkeypatch.setattr(products, "is_fast", lambda dtype, device: True)
    errors = {}
    for name in ("pairs", "plain"):
        model = wide()
        optimizer = LOZO(model, 0.01, scale="unit", precision="bfloat16")
        if name == "plain":
            monkeypatch.setattr(
                products.Product, "_differenced",
                lambda self, x, low: products.matmul(self.module, x, low).to(x.dtype),
            )  # fmt: skip
        found = optimizer.quality(cross_entropy(model), labelled(), directions=8)
        errors[name] = found.error
        assert found.products == "bfloat16"
        assert found.correlation > 0.9 or name == "plain"
        assert optimizer.record.curves("c_error").values[0, 0] == found.error
    assert errors["pairs"] <= 0.06
    assert errors["pairs"] <= errors["plain"] / 3


@pytest.mark.parametrize("fast", [True, False])
def test_a_model_in_16_bits_has_a_c_as_good_as_in_32(fast, monkeypatch):
    monkeypatch.setattr(products, "is_fast", lambda dtype, device: fast)
    low = wide(torch.bfloat16)
    truth = copy.deepcopy(low).float()
    settings, (x, y) = {"scale": "unit", "nu": 9}, labelled(torch.bfloat16)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "eps is below the spacing")
        a, b = LOZO(truth, 0.0, **settings), LOZO(low, 0.0, **settings)
        before, found = copy.deepcopy(low.state_dict()), []
        for _ in range(6):
            a.step(cross_entropy(truth), (x.float(), y), paired=False)
            b.step(cross_entropy(low), (x, y))
            found.append((a.last["c"], b.last["c"]))
    exact, c = np.array(found).T
    assert np.linalg.norm(c - exact) <= (0.06 if fast else 1e-3) * np.linalg.norm(exact)
    assert ("float32 products: those in bfloat16 are slower here" in b.last["how"]) is not fast
    assert b.record.fact("products").all == (("bfloat16" if fast else "float32"),)
    for name, p in low.state_dict().items():
        assert p.dtype == torch.bfloat16
        assert torch.equal(p, before[name]), name


def test_written_weights_are_seen_by_products_in_few_bits(monkeypatch):
    monkeypatch.setattr(products, "is_fast", lambda dtype, device: True)
    model = wide()
    optimizer = LOZO(model, 1.0, scale="unit", nu=2, precision="bfloat16")
    for _ in range(5):
        optimizer.step(cross_entropy(model), labelled())
    with torch.no_grad():
        model[3].weight.mul_(1.5)
    optimizer.step(cross_entropy(model), labelled())
    optimizer.flush()
    held = optimizer.engine.pairing.forward.weights
    assert held(model[3], torch.bfloat16).float().allclose(model[3].weight, rtol=1e-2)
    found = optimizer.quality(cross_entropy(model), labelled())
    assert found.error <= 0.1


@pytest.mark.parametrize("given", [False, True])
def test_autocast_in_the_closure_is_recorded(given):
    model, (x, y) = network(torch.float32), problem(torch.float32)

    def closure(batch=(x, y)):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.mse_loss(model(batch[0]).float(), batch[1])

    optimizer = LOZO(model, 0.01, record=Record())
    with warnings.catch_warnings():
        # A hook of float32 factors is not at fault for the rounding of bfloat16.
        warnings.simplefilter("error", HookWarning)
        warnings.simplefilter("ignore", PairedWarning)
        optimizer.step(closure, *[(x, y)] * given)
    assert optimizer.record.fact("products").all == ("bfloat16",)
    assert optimizer.tensors[0].storage == "hooked"
    with pytest.raises(ValueError, match="autocast to torch.bfloat16"):
        optimizer.engine.quality(closure, (x, y), 2)
    # A run that goes on looks no more.
    again = LOZO(model, 0.01, record=Record())
    again.load_state_dict(optimizer.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PairedWarning)
        again.step(closure, *[(x, y)] * given)
    assert again.record.fact("products").all == ("bfloat16",)


# -- factors kept apart -----------------------------------------------------------------------------------


def test_kept_factors_are_one_pair_and_cut_down_where_asked():
    batch, found = problem(), {}
    for cap in (None, 4):
        model = network()
        base = copy.deepcopy(model)
        optimizer = LOZO(model, 0.01, nu=2, fold=False, rank_cap=cap, log=True)
        cut = {}
        for _ in range(9):
            optimizer.step(mse(model), batch, paired=True)
            cut |= optimizer.last.get("rank_error", {})
        found[cap] = optimizer
        assert len(optimizer.tensors[0].factors()) == 2
        state = optimizer.state_dict()
        other = copy.deepcopy(base)
        again = LOZO(other, 0.01, nu=2, fold=False, rank_cap=cap)
        again.load_state_dict(state)
        for net, each in ((model, optimizer), (other, again)):
            each.step(mse(net), batch, paired=True)
        x = batch[0]
        assert torch.equal(model(x), other(x))
        # A replayed model has no hooks and holds what they added.
        torch.testing.assert_close(replay(base, optimizer.log)(x), model(x), rtol=0, atol=1e-12)
        assert bool(cut) is (cap is not None)
        assert all(0 < e < 1 for e in cut.values())
    assert len(found[None].adapter()["0.weight"]) == 6
    assert found[4].tensors[0].kept.rank == 4
    assert "rank_cap" not in found[None].log.header["settings"]
    assert found[4].log.header["settings"]["rank_cap"] == 4
