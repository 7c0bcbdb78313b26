"""The optimisers against the paper line by line, their two modes against each other."""

import contextlib
import copy

import pytest
import torch
import torch.nn.functional as F
from tests.zeroth_order.nets import flat, loss_of, network, problem
from torch import nn
from torch.func import functional_call

from surefoot.zeroth_order import LOZO, MeZO, StepLog, ZOAdam, replay
from surefoot.zeroth_order.reference import lozo_reference


@pytest.mark.parametrize("mode", ["inplace", "factored"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("scale", ["paper", "unit"])
@pytest.mark.parametrize("v_dist", ["gaussian", "orthogonal"])
def test_the_paper_line_by_line(mode, momentum, scale, v_dist):
    """23 steps of period 5: four full periods, three resamplings, a rest."""
    model = network()
    x, y = problem()
    names = [n for n, _ in model.named_parameters()]
    start = [p.detach().clone() for p in model.parameters()]

    def f(tensors, t):
        return (
            (functional_call(model, dict(zip(names, tensors, strict=True)), (x,)) - y)
            .square()
            .mean()
        )

    settings = {"rank": 2, "nu": 5, "eps": 1e-3, "momentum": momentum, "scale": scale, "seed": 3}
    expected = lozo_reference(start, f, 23, lr=0.01, orthogonal=v_dist == "orthogonal", **settings)
    optimizer = LOZO(model, 0.01, mode=mode, v_dist=v_dist, **settings)
    for _ in range(23):
        optimizer.step(lambda: (model(x) - y).square().mean())
    optimizer.flush()
    for p, q in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), q, rtol=0, atol=1e-10)


def test_the_update_follows_the_perturbation_also_where_v_is_drawn():
    """The authors' code draws U and V in turn and U alone for the update: every nu-th step is noise."""
    x = nn.Parameter(torch.zeros(6, 5, dtype=torch.float64))
    optimizer = LOZO([x], 1.0, rank=2, nu=1, eps=1.0)
    for _ in range(5):
        seen, before = [], x.detach().clone()

        def closure(seen=seen):
            seen.append(x.detach().clone())
            return (x * torch.arange(30.0).view(6, 5)).sum()

        optimizer.step(closure)
        direction, change = seen[0] - before, x.detach() - before
        cosine = float((direction * change).sum() / direction.norm() / change.norm())
        assert abs(cosine) == pytest.approx(1, abs=1e-9)
        torch.testing.assert_close(seen[0] - before, before - seen[1])


def test_a_subspace_run_is_zo_sgd_on_its_factor():
    """Within a period LOZO is ZO-SGD on B -> f(X + B V^T) with step alpha / r (paper, subspace reading)."""
    target = torch.randn(8, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x = nn.Parameter(torch.zeros(8, 6, dtype=torch.float64))
    optimizer = LOZO([x], 0.01, rank=2, nu=10, eps=1e-3)
    base, b = torch.zeros(8, 6, dtype=torch.float64), None

    def f(w):
        return torch.tanh(w - target).square().sum()

    lr = float(torch.tensor(0.01))
    for t in range(20):
        if t % 10 == 0:
            base = base if b is None else base + b @ v.T
            v = optimizer.engine.directions.rng.factor(t // 10, 0, 6, 2, False).double()
            b = torch.zeros(8, 2, dtype=torch.float64)
        u = optimizer.engine.directions.rng.normal("U", t, 0, (8, 2)).double()
        c = (f(base + (b + 1e-3 * u) @ v.T) - f(base + (b - 1e-3 * u) @ v.T)) / 2e-3
        b = b - lr / 2 * c.float().double() * u
        optimizer.step(lambda: f(x))
        torch.testing.assert_close(x.detach(), base + b @ v.T, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bit_weights_do_not_drift(dtype):
    model = network(dtype)
    before = flat(model).clone()
    optimizer = LOZO(model, 0.0, nu=7, momentum=0.9, eps=1e-2)
    for _ in range(60):
        optimizer.step(loss_of(model))
    optimizer.flush()
    assert torch.equal(flat(model), before)


def test_in_place_sixteen_bit_weights_do_drift_and_are_refused():
    model = network(torch.bfloat16)
    with pytest.raises(
        ValueError, match="0.weight is torch.bfloat16 and would be perturbed in place"
    ):
        LOZO(model, 0.0, mode="inplace")
    before = flat(model).clone()
    optimizer = LOZO(model, 0.0, mode="inplace", allow_drift=True)
    for _ in range(60):
        optimizer.step(loss_of(model))
    drift = float((flat(model) - before).float().norm() / before.float().norm())
    assert 1e-3 < drift < 0.2


def test_estimate_and_apply_are_a_step():
    models = [network() for _ in range(3)]
    optimizers = [LOZO(m, 0.01, nu=4, scale="unit") for m in models]
    x, y = problem()

    def part(model, rows):
        return lambda: (model(x[rows]) - y[rows]).square().mean()

    halves = (slice(0, 15), slice(15, 30))
    for _ in range(9):
        optimizers[0].step(part(models[0], slice(0, 30)))
        for rows in halves:
            optimizers[1].estimate(part(models[1], rows))
        optimizers[1].apply()
        for rows in (slice(0, 10), slice(10, 30)):
            optimizers[2].estimate(part(models[2], rows), weight=rows.stop - rows.start)
        assert optimizers[2].step() is None
    # Linear in the losses, except for c's rounding to single precision.
    torch.testing.assert_close(flat(models[1]), flat(models[0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(flat(models[2]), flat(models[0]), rtol=0, atol=1e-6)


def test_several_directions_are_averaged():
    x = nn.Parameter(torch.zeros(7, 5, dtype=torch.float64))
    g = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    optimizer = LOZO([x], 1.0, nu=1, num_directions=3, eps=0.5)
    calls = []

    def closure():
        calls.append(1)
        return (g * x).sum()

    optimizer.step(closure)
    assert len(calls) == 6
    v = optimizer.engine.directions.rng.factor(0, 0, 5, 2, False).double()
    expected = torch.zeros(7, 5, dtype=torch.float64)
    for i in range(3):
        z = optimizer.engine.directions.rng.normal("U", i, 0, (7, 2)).double() @ v.T
        expected -= (g * z).sum() * z / 2 / 3
    torch.testing.assert_close(x.detach(), expected, rtol=1e-5, atol=1e-6)


def test_one_sided_differences():
    calls = []
    model = network()
    optimizer = LOZO(model, 0.01, one_sided=True, num_directions=2, self_check=False)
    base = loss_of(model)

    def closure():
        calls.append(1)
        return base()

    before = float(base().detach())
    optimizer.step(closure)
    assert len(calls) == 3
    assert optimizer.last["loss_minus"] == pytest.approx(before, rel=1e-12)


def test_clipping_bounds_c():
    model = network()
    optimizer = LOZO(model, 0.01, c_clip=1e-3)
    optimizer.step(loss_of(model))
    assert abs(optimizer.last["c"]) <= 1e-3 * (1 + 1e-6)


@pytest.mark.parametrize("mode", ["inplace", "factored"])
def test_weight_decay_shrinks_matrices_at_the_end_of_a_period(mode):
    model = network()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = LOZO(model, 0.1, nu=3, weight_decay=0.5, mode=mode)
    for _ in range(6):
        optimizer.step(lambda: 0.0 * loss_of(model)())
    for name, p in model.named_parameters():
        factor = (1 - 0.05) ** 6 if p.ndim >= 2 else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor, rtol=1e-6, atol=1e-15)


def test_a_step_that_is_not_finite_is_skipped():
    model = network()
    optimizer = LOZO(model, 0.01, nu=4, log=True)
    good = loss_of(model)
    for t in range(6):
        before = [s.b.clone() for s in optimizer.tensors if s.b is not None]
        told = pytest.warns(UserWarning, match=r"step 2 was skipped.*: its losses were nan and nan")
        with told if t == 2 else contextlib.nullcontext():
            optimizer.step((lambda: float("nan")) if t == 2 else good)
        if t == 2:
            assert optimizer.last["skipped"]
            after = [s.b for s in optimizer.tensors if s.b is not None]
            assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert optimizer.t == 6
    assert optimizer.skipped == 1
    assert sum(c != c for c in optimizer.log.c) == 1
    # Told once, counted always, and the count goes on where a state was taken.
    optimizer.step(lambda: float("inf"))
    assert optimizer.skipped == 2
    again = LOZO(network(), 0.01, nu=4)
    again.load_state_dict(optimizer.state_dict())
    assert again.skipped == 2


@pytest.mark.parametrize("mode", ["inplace", "factored"])
def test_a_micro_batch_of_weight_0_is_left_out(mode):
    def asked():
        raise AssertionError("there is nothing to count")

    models = [network(), network()]
    optimizers = [LOZO(m, 0.01, nu=4, mode=mode, model=m, log=True) for m in models]
    for t in range(6):
        for model, optimizer in zip(models, optimizers, strict=True):
            loss = loss_of(model)
            if optimizer is optimizers[1] and t % 2:
                optimizer.estimate(asked, weight=0)
            optimizer.estimate(loss, weight=3)
            if optimizer is optimizers[1]:
                optimizer.estimate(asked, weight=0.0)
            optimizer.apply()
    for optimizer in optimizers:
        optimizer.flush()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert optimizers[0].log.c == optimizers[1].log.c
    base = network()
    replay(base, optimizers[1].log)
    for a, b in zip(models[1].parameters(), base.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_with_nothing_to_count_is_skipped():
    model = network()
    optimizer = LOZO(model, 0.01, nu=4, log=True)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.estimate(lambda: float("nan"), weight=0)
    with pytest.warns(UserWarning, match=r"step 0 was skipped.* nothing? to count|weight 0"):
        optimizer.apply()
    assert (optimizer.t, optimizer.skipped, optimizer.last["skipped"]) == (1, 1, True)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    # The look at the hooks comes with the first loss that there is.
    assert optimizer.engine.self_check is not None
    optimizer.step(loss_of(model))
    assert optimizer.engine.self_check is None


def test_a_first_loss_that_is_not_finite_blames_no_hook():
    model = network()
    optimizer = LOZO(model, 0.01, nu=4)
    with pytest.warns(UserWarning, match="step 0 was skipped") as told:
        optimizer.step(lambda: 0 * loss_of(model)() + float("nan"))
    assert len(told) == 1
    assert {x.storage for x in optimizer.tensors if not x.dense} == {"hooked"}


@pytest.mark.parametrize("mode", ["inplace", "factored"])
def test_evaluating_between_steps_shows_the_iterate(mode):
    model = network()
    optimizer = LOZO(model, 0.01, nu=50, mode=mode)
    for _ in range(7):
        optimizer.step(loss_of(model))
    hooked = float(loss_of(model)().detach())
    optimizer.flush()
    assert float(loss_of(model)().detach()) == pytest.approx(hooked, rel=1e-9)


def test_factors_kept_apart_add_up():
    one, two = network(), network()
    a, b = LOZO(one, 0.01, nu=3, fold=False), LOZO(two, 0.01, nu=3)
    start = {n: p.detach().clone() for n, p in one.named_parameters()}
    for _ in range(8):
        a.step(loss_of(one))
        b.step(loss_of(two))
    x, _ = problem()
    torch.testing.assert_close(one(x), two(x), rtol=0, atol=1e-9)
    assert torch.equal(one[0].weight.detach(), start["0.weight"])
    b.flush()
    factors = a.adapter()["0.weight"]
    assert len(factors) == 3
    moved = start["0.weight"] + sum(f @ v.T for f, v in factors)
    torch.testing.assert_close(moved, two[0].weight.detach(), rtol=0, atol=1e-9)


class ReadTwice(nn.Module):
    """Its weight is read outside its module as well, and hence is written."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(9, 9), nn.Linear(9, 1)

    def forward(self, x):
        return self.last(torch.tanh(F.linear(torch.tanh(self.first(x)), self.first.weight)))


@pytest.mark.parametrize("cap", [None, 2])
@pytest.mark.filterwarnings("ignore:first.weight cannot be perturbed by a hook")
def test_factors_of_a_written_tensor_add_up(cap):
    def made():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return ReadTwice().double()

    x, y = problem()
    models = [made(), made()]
    kept = LOZO(models[0], 0.01, rank=1, nu=3, fold=False, rank_cap=cap, log=True)
    folded = LOZO(models[1], 0.01, rank=1, nu=3)
    start = made().first.weight.detach().clone()
    for _ in range(8):
        for model, optimizer in zip(models, (kept, folded), strict=True):
            optimizer.step(lambda model=model: F.mse_loss(model(x), y))
    assert kept.tensors[0].storage == "written"
    folded.flush()
    # At most two periods were kept: a cap of 2 cuts nothing off.
    for one, two in zip(models[0].parameters(), models[1].parameters(), strict=True):
        if one is not models[0].last.weight:
            torch.testing.assert_close(one, two, rtol=0, atol=1e-10)
    moved = start + sum(b @ v.T for b, v in kept.adapter()["first.weight"])
    torch.testing.assert_close(moved, models[0].first.weight.detach(), rtol=0, atol=1e-12)
    again, state = made(), kept.state_dict()
    other = LOZO(again, 0.01, rank=1, nu=3, fold=False, rank_cap=cap)
    other.load_state_dict(state)
    assert torch.equal(again.first.weight, models[0].first.weight)
    torch.testing.assert_close(replay(made(), kept.log)(x), models[0](x), rtol=0, atol=1e-12)


def test_the_global_generator_and_gradients_are_left_alone():
    model = network()
    state = torch.random.get_rng_state()
    for cls in (LOZO, MeZO, ZOAdam):
        optimizer = cls(model, 1e-3)
        for _ in range(3):
            optimizer.step(loss_of(model))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_the_same_directions_for_a_module_and_its_parameters():
    one, two = network(), network()
    a, b = LOZO(one, 0.01, nu=5), LOZO(list(two.parameters()), 0.01, nu=5)
    for _ in range(12):
        a.step(loss_of(one))
        b.step(loss_of(two))
    a.flush()
    torch.testing.assert_close(flat(one), flat(two), rtol=0, atol=1e-9)


def test_groups_and_schedules():
    model = network()
    groups = [
        {"params": [model[0].weight], "rank": 3, "lr": 0.02},
        {"params": [model[3].weight], "rank": 0},
        {"params": [model[5].weight, model[5].bias]},
    ]
    optimizer = LOZO(groups, 0.01, model=model, nu=4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    others = model[2].weight.detach().clone(), model[3].bias.detach().clone()
    ranks = [s.rank for s in optimizer.tensors]
    assert ranks == [3, 0, 0, 0]
    losses = [float(optimizer.step(loss_of(model))) for _ in range(3)]
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.01, 0.005, 0.005]
    assert all(loss > 0 for loss in losses)
    assert torch.equal(model[2].weight, others[0])
    assert torch.equal(model[3].bias, others[1])


def test_changing_the_rank_waits_for_the_next_period():
    model = network()
    optimizer = LOZO(model, 0.01, rank=2, nu=4, momentum=0.9)
    for t in range(10):
        if t == 2:
            optimizer.param_groups[0]["rank"] = 3
        optimizer.step(loss_of(model))
        assert optimizer.tensors[0].rank == (2 if t < 4 else 3)


def test_objectives_need_not_be_differentiable():
    model = network()
    x, y = problem()
    optimizer = LOZO(model, 0.05, scale="unit", eps=1e-2)
    for _ in range(5):
        loss = optimizer.step(lambda: 1 - float(((model(x) > 0) == (y > 0)).double().mean()))
    assert 0 <= float(loss) <= 1


def test_fd_error():
    x = nn.Parameter(torch.zeros(5, 4, dtype=torch.float64))
    optimizer = LOZO([x], 0.1, rank=2, eps=0.1)
    assert optimizer.fd_error(lambda: (x - 1).square().sum()) < 1e-12
    assert optimizer.fd_error(lambda: (x - 1).pow(4).sum()) > 1e-4
    assert x.detach().abs().max() < 1e-15
    assert optimizer.t == 0


def test_reprojection_of_the_momentum():
    """Orthogonal V: paper and lstsq agree. Energy kept is r (n + r + 1) / n^2 on average for Gaussian V."""
    kept = []
    for seed in range(200):
        x = nn.Parameter(torch.zeros(6, 12, dtype=torch.float64))
        optimizer = LOZO([x], 0.0, rank=2, nu=1, momentum=0.5, seed=seed)
        g = torch.randn(6, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        optimizer.step(lambda x=x, g=g: (g * x).sum())
        n_old, v_old = optimizer.tensors[0].moments["n"].clone(), optimizer.tensors[0].v
        optimizer.engine.directions.begin_period(optimizer.engine.rule.renewed)
        n_new, v_new = optimizer.tensors[0].moments["n"], optimizer.tensors[0].v
        kept.append(float((n_new @ v_new.T).square().sum() / (n_old @ v_old.T).square().sum()))
    expected = 2 * (12 + 2 + 1) / 144
    assert sum(kept) / 200 == pytest.approx(expected, rel=0.25)
    ends = []
    for how in ("paper", "lstsq", "reset"):
        model = network()
        optimizer = LOZO(model, 0.01, nu=2, momentum=0.9, reproject=how, v_dist="orthogonal")
        for _ in range(7):
            optimizer.step(loss_of(model))
        optimizer.flush()
        ends.append(flat(model))
    torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=1e-7)
    assert float((ends[0] - ends[2]).abs().max()) > 1e-6


def test_momentum_costs_a_factor_only():
    model = network()
    optimizer = LOZO(model, 0.01, momentum=0.9)
    optimizer.step(loss_of(model))
    held = sum(m.numel() for s in optimizer.tensors for m in s.moments.values())
    matrices = [p for p in model.parameters() if p.ndim == 2 and min(p.shape) > 2]
    dense = sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in matrices)
    assert held == sum(2 * p.shape[0] for p in matrices) + dense


def test_a_log_may_be_given_as_a_path(tmp_path):
    model = network()
    optimizer = LOZO(model, 0.01, log=str(tmp_path / "run.zo"))
    for _ in range(5):
        optimizer.step(loss_of(model))
    optimizer.flush()
    assert len(StepLog.load(tmp_path / "run.zo")) == 5


class TestOptions:
    """The extras, each by its definition on a linear loss."""

    def one(self, **settings):
        x = nn.Parameter(torch.zeros(7, 5, dtype=torch.float64))
        g = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return x, g, LOZO([x], 1.0, nu=1, eps=0.5, **settings)

    def products(self, optimizer, g, q):
        v = optimizer.engine.directions.rng.factor(0, 0, 5, 2, False).double()
        z = [
            optimizer.engine.directions.rng.normal("U", i, 0, (7, 2)).double() @ v.T
            for i in range(q)
        ]
        return z, [float((g * d).sum()) for d in z]

    def test_leave_one_out(self):
        x, g, optimizer = self.one(num_directions=4, leave_one_out=True)
        calls = []

        def closure():
            calls.append(1)
            return (g * x).sum() + 100

        optimizer.step(closure)
        assert len(calls) == 4
        z, p = self.products(optimizer, g, 4)
        expected = sum(-(p[i] - (sum(p) - p[i]) / 3) * z[i] / 2 / 4 for i in range(4))
        torch.testing.assert_close(x.detach(), expected, rtol=1e-5, atol=1e-6)

    def test_normalised_steps_do_not_see_the_scale_of_the_loss(self):
        ends = []
        for scale in (1.0, 1000.0):
            x, g, optimizer = self.one(num_directions=3, normalize=True)
            for _ in range(4):
                optimizer.step(lambda x=x, g=g, scale=scale: scale * (g * x).sum())
            ends.append(x.detach().clone())
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        "settings",
        [
            {"num_directions": 3, "leave_one_out": True},
            {"num_directions": 3, "normalize": True},
        ],
    )
    @pytest.mark.parametrize("mode", ["inplace", "factored"])
    def test_they_replay(self, settings, mode):
        from surefoot.zeroth_order import replay

        base = network()
        model = copy.deepcopy(base)
        optimizer = LOZO(model, 1e-3, nu=4, mode=mode, log=True, **settings)
        for _ in range(10):
            optimizer.step(loss_of(model))
        optimizer.flush()
        assert torch.equal(flat(replay(base, optimizer.log)), flat(model))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"leave_one_out": True}, "leave_one_out needs num_directions of at least 2, got 1"),
            ({"normalize": True}, "normalize needs num_directions of at least 2, got 1"),
            (
                {"leave_one_out": True, "one_sided": True, "num_directions": 2},
                "must not be combined with one_sided",
            ),
        ],
    )
    def test_bad_options(self, settings, message):
        with pytest.raises(ValueError, match=message):
            LOZO(network(), 0.1, **settings)
