"""DP-LOZO: what leaves a step, and that nothing else does (arXiv 2410.07698 with 2310.09639)."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import nn

from surefoot._numerics.seeds import generator_for
from surefoot.record import Record
from surefoot.zeroth_order import LOZO, MeZO, Privacy, StepLog, replay
from surefoot.zeroth_order._engine.private_sum import PrivateSum

INF = math.inf


def digits(dtype=torch.float64):
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x / 16, dtype=dtype), torch.tensor(y)


def net(dtype=torch.float64, *layers):
    generator = generator_for("private tests")
    made = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), *layers, nn.Linear(32, 10)).to(dtype)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=dtype) / 8)
    return made


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def optimizer(model, privacy, **settings):
    chosen = {"lr": 1e-2, "nu": 7, "scale": "unit", **settings}
    return LOZO(model, chosen.pop("lr"), privacy=privacy, **chosen)


def losses_of(model, x, y, rows):
    return nn.functional.cross_entropy(model(x[rows]), y[rows], reduction="none")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


# -- the mechanism ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("directions", [1, 4])
def test_without_noise_and_clip_it_is_plain_lozo(directions):
    x, y = digits()
    ends = []
    for privacy in (None, Privacy(0.0, INF, 0.1, 500)):
        model = net()
        opt = optimizer(model, privacy, num_directions=directions)
        for t in range(50):
            rows = torch.randperm(len(x), generator=seeded(t))[:50]
            each = lambda rows=rows, model=model: losses_of(model, x, y, rows)  # noqa: E731 - a line of a loop
            opt.step(each if privacy else lambda each=each: each().mean())
        opt.flush()
        ends.append(weights(model))
    assert torch.equal(*ends)


numbers = st.floats(allow_nan=True, allow_infinity=True, width=64)
rows = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12)


@settings(max_examples=300)
@given(st.integers(1, 2), rows, st.floats(1e-6, 1e6), st.data())
def test_an_example_moves_the_sum_by_at_most_the_clip(directions, found, clip, data):
    left_out = data.draw(st.integers(0, len(found) - 1))
    c = torch.tensor(found, dtype=torch.float64)[:, :directions]
    whole, without = (PrivateSum(Privacy(1.0, clip, 0.5, 10), directions) for _ in range(2))
    whole.include(c)
    without.include(c[[i for i in range(len(found)) if i != left_out]])
    moved = whole.sum(noise=False) - without.sum(noise=False)
    assert np.isfinite(moved).all()
    # Exactly: both sums and their difference are whole multiples of one power of two.
    assert sum(v * v for v in map(_fraction, moved)) <= _fraction(clip) ** 2


def _fraction(value):
    from fractions import Fraction

    return Fraction(float(value))


@settings(max_examples=50)
@given(rows, st.floats(1e-3, 1e3), st.randoms(use_true_random=False))
def test_the_sum_is_the_same_in_every_order_and_in_parts(found, clip, order):
    c = torch.tensor(found, dtype=torch.float64)
    at = list(range(len(found)))
    order.shuffle(at)
    one, parts = (PrivateSum(Privacy(1.0, clip, 0.5, 10), 2) for _ in range(2))
    one.include(c)
    for i in at:
        parts.include(c[[i]])
    assert (one.sum(noise=False) == parts.sum(noise=False)).all()


def test_the_clip_is_of_the_whole_vector_of_directions():
    gathered = PrivateSum(Privacy(1.0, 5.0, 0.5, 10), 2)
    gathered.include(torch.tensor([[3.0, 4.0]]))
    assert gathered.sum(noise=False) == pytest.approx([3, 4], rel=1e-8)
    gathered.include(torch.tensor([[30.0, 40.0]]))
    assert gathered.sum(noise=False) == pytest.approx([6, 8], rel=1e-8)


def test_what_is_not_finite_counts_as_nothing():
    gathered = PrivateSum(Privacy(1.0, 1.0, 0.5, 10), 2)
    given = [[INF, 0.5], [math.nan, 0.5], [0.25, 0.25], [1e308, -1e308]]
    gathered.include(torch.tensor(given, dtype=torch.float64))
    diagonal = 1 / math.sqrt(2)
    wanted = [0.25 + diagonal, 0.25 - diagonal]
    assert gathered.sum(noise=False) == pytest.approx(wanted, abs=1e-8)


def test_the_noise_has_the_standard_deviation_sigma_times_clip():
    privacy = Privacy(3.0, 0.5, 0.1, 10)
    gathered = PrivateSum(privacy, 20_000)
    gathered.include(torch.zeros(0, 20_000))
    drawn = gathered.sum(noise=True)
    # Standard error of a standard deviation: 1.5 / sqrt(2 n) = 0.0075.
    assert abs(drawn.std() - 1.5) < 5 * 0.0075
    assert abs(drawn.mean()) < 5 * 1.5 / math.sqrt(20_000)


@pytest.mark.parametrize("form", ["dense", "gaussian", "orthogonal"])
def test_clipping_weighs_an_example_and_does_not_turn_its_gradient(form):
    """E[clip(<g, Z>) Z | V] = p S_V g with p = erf(C / sqrt(2 g^T S_V g)): Stein's lemma."""
    from scipy.special import erf

    model = nn.Linear(4, 6, bias=False).double()
    g = torch.randn(6, 4, generator=seeded(3), dtype=torch.float64)
    clip, draws = 1.5, 1_500
    with torch.no_grad():
        model.weight.zero_()
    privacy = Privacy(0.0, clip, 1.0, 1)
    low_rank = {} if form == "dense" else {"rank": 2, "v_dist": form}
    kind = MeZO if form == "dense" else LOZO
    opt = kind(model, 0.0, mode="factored", nu=draws, scale="unit", privacy=privacy, **low_rank)
    total, square = torch.zeros(6, 4).double(), torch.zeros(6, 4).double()
    (tensor,) = opt.tensors
    directions = opt.engine.directions
    for _ in range(draws):
        opt.estimate(lambda: (g * opt_weight(opt)).sum().reshape(1))
        u = directions.draw(tensor, 0).double()
        z = u if tensor.dense else directions.scale_of(tensor)[0] * u @ tensor.v.double().T
        one = float(opt.contribution()) * z
        total, square = total + one, square + one**2
        opt.apply([0.0])
    mean = total / draws
    error = ((square / draws - mean**2) / draws).sqrt()
    cov = torch.eye(4).double()
    if not tensor.dense:
        v = tensor.v.double()
        cov = v @ v.T / tensor.rank
    p = erf(clip / math.sqrt(2 * float((g @ cov * g).sum())))
    assert 0.2 < p < 0.8  # much is clipped
    off = lambda weight: float(((mean - weight * (g @ cov)).abs() / error).max())  # noqa: E731 - a line of a loop
    assert off(p) < 4
    # What is not weighed, and what is weighed half as much again, would be seen.
    assert min(off(1.0), off(1.5 * p)) > 4.5


def opt_weight(opt):
    """The weight as the model sees it: hooks add the factors of a perturbation."""
    (tensor,) = opt.tensors
    found = tensor.param.double()
    for a, v in [] if tensor.dense else tensor.factors():
        found = found + a.double() @ v.double().T
    return found


# -- a step -------------------------------------------------------------------------------------------------


def private_run(steps=12, *, noise=1.0, secret=None, log=None, **how):
    x, y = digits(torch.float32)
    model = net(torch.float32)
    privacy = Privacy(noise, 2.0, 0.02, len(x), secret=secret)
    opt = optimizer(model, privacy, log=log, **how)
    for chosen in privacy.sampler(steps=steps, secret=seeded(4)):
        opt.step(lambda chosen=chosen: losses_of(model, x, y, chosen))
    opt.flush()
    return model, opt


def test_an_empty_batch_is_a_step_of_noise_alone():
    model = net(torch.float32)
    privacy = Privacy(1.0, 2.0, 0.5, 10, secret=seeded(1))
    opt = optimizer(model, privacy, log=True)
    wanted = 2.0 * float(torch.randn(1, generator=seeded(1), dtype=torch.float64)) / 5
    assert opt.step(lambda: torch.zeros(0)) is None
    assert opt.last["c"] == np.float32(wanted)
    assert opt.t == len(opt.log) == 1
    assert opt.skipped == 0


@pytest.mark.parametrize(
    "batch", [[], (torch.zeros(0, 64), torch.zeros(0)), {"x": torch.zeros(0, 3)}]
)
def test_a_batch_without_rows_is_not_evaluated(batch):
    opt = optimizer(net(torch.float32), Privacy(1.0, 2.0, 0.5, 10))

    def never(batch):
        raise AssertionError("the closure was called")

    opt.step(never, batch)
    assert opt.t == 1


def test_micro_batches_give_the_bits_of_the_whole_batch_and_leave_no_trace():
    x, y = digits(torch.float64)
    ends, logs = [], []
    for cuts in ([slice(0, 40)], [slice(0, 7), slice(7, 8), slice(8, 40)]):
        model = net()
        opt = optimizer(model, Privacy(1.0, 2.0, 0.5, 80, secret=seeded(1)), log=True)
        for t in range(6):
            chosen = torch.randperm(len(x), generator=seeded(t))[:40]
            # Evaluated row by row, so that no product differs with the size of its batch.
            each = torch.cat
            for cut in cuts:
                opt.estimate(
                    lambda chosen=chosen, cut=cut, model=model, each=each: each(
                        [losses_of(model, x, y, [i]) for i in chosen[cut].tolist()]
                    )
                )
            opt.apply()
        opt.flush()
        ends.append(weights(model))
        logs.append(opt.log.to_bytes())
    assert torch.equal(*ends)
    assert logs[0] == logs[1]


def test_two_runs_of_one_seed_differ_unless_somebody_seeded_the_noise():
    (a, one), (b, other) = private_run(), private_run()
    assert not torch.equal(weights(a), weights(b))
    assert one.record.fact("secret_noise").all == (True,)
    (c, first), (d, _) = private_run(secret=seeded(9)), private_run(secret=seeded(9))
    assert torch.equal(weights(c), weights(d))
    assert first.record.fact("secret_noise").all == (False,)
    assert other.record.fact("secret_sampling").all == (False,)


def test_nothing_of_the_data_is_in_record_log_or_last_but_the_releases():
    _, opt = private_run(log=True)
    assert set(opt.record.quantities) == {"c", "lr", "released_steps", "squared_direction"}
    assert set(opt.last) == {"c", "skipped"}
    assert opt.log._how == [(12, 1, False, 0)]
    assert opt.record.constant("released_steps").tolist() == [12]
    assert opt.skipped == 0


def test_the_log_makes_the_weights_again():
    model, opt = private_run(log=True)
    again = replay(net(torch.float32), opt.log)
    assert torch.equal(weights(model), weights(again))


def test_a_log_on_disk_names_its_mechanism(tmp_path):
    private_run(log=str(tmp_path / "run.zolog"))
    found = StepLog.load(tmp_path / "run.zolog").header["privacy"]
    assert found == {"noise_multiplier": 1.0, "clip": 2.0, "sample_rate": 0.02, "population": 1797}


def test_the_final_weights_give_every_release_back():
    """Directions are public: weights determine the releases, so that none of them is hidden."""
    start, steps = weights(net()), 40
    x, y = digits()
    model = net()
    privacy = Privacy(1.0, 2.0, 0.02, len(x))
    opt = optimizer(model, privacy, nu=10)
    for chosen in privacy.sampler(steps=steps):
        opt.step(lambda chosen=chosen: losses_of(model, x, y, chosen))
    opt.flush()
    columns = []
    for t in range(steps):
        alone = net()
        only = optimizer(alone, None, nu=10, self_check=False)
        for s in range(steps):
            only.apply([1.0 if s == t else 0.0])
        only.flush()
        columns.append(weights(alone) - start)
    moved = weights(model) - start
    found = torch.linalg.lstsq(torch.stack(columns, dim=1), moved[:, None]).solution[:, 0]
    released = torch.tensor(opt.record["c"][0])
    assert float(np.corrcoef(found, released)[0, 1]) > 1 - 1e-9


# -- sampling -----------------------------------------------------------------------------------------------


def test_each_example_has_a_coin_of_its_own_and_empty_batches_are_kept():
    sampler = Privacy(1.0, 1.0, 0.1, 20).sampler(steps=4000)
    assert len(sampler) == 4000
    batches = list(sampler)
    counts = np.bincount(list(itertools.chain(*batches)), minlength=20)
    assert (abs(counts - 400) < 5 * math.sqrt(4000 * 0.1 * 0.9)).all()
    sizes = np.bincount([len(b) for b in batches], minlength=1)
    # (9/10)^20 = .1216 of them are empty.
    assert abs(sizes[0] / 4000 - 0.9**20) < 5 * math.sqrt(0.12 * 0.88 / 4000)


def test_a_rate_of_one_takes_everybody():
    assert list(Privacy(1.0, 1.0, 1.0, 3).sampler(steps=2)) == [[0, 1, 2]] * 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_takes_the_sampler_with_its_empty_batches(workers):
    from surefoot.zeroth_order.private import keeping_empty

    x, y = digits(torch.float32)
    privacy = Privacy(1.0, 2.0, 0.001, len(x))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(x, y), num_workers=workers,
        batch_sampler=privacy.sampler(steps=20, secret=seeded(0)),
        collate_fn=keeping_empty(torch.utils.data.default_collate),
    )  # fmt: skip
    model = net(torch.float32)
    opt = optimizer(model, privacy)
    sizes = []
    for batch in loader:
        sizes.append(len(batch[0]) if batch else 0)
        opt.step(lambda b: nn.functional.cross_entropy(model(b[0]), b[1], reduction="none"), batch)
    assert 0 in sizes
    assert opt.t == 20
    # A loader with workers draws ahead of the steps.
    assert opt.record.fact("sampling").all == ("poisson",)


def test_a_batch_that_the_sampler_did_not_draw_is_no_poisson_batch():
    x, y = digits(torch.float32)
    model = net(torch.float32)
    privacy = Privacy(1.0, 2.0, 0.01, len(x))
    opt = optimizer(model, privacy)
    for chosen in privacy.sampler(steps=3, secret=seeded(0)):
        twice = [*chosen, 0]
        opt.step(lambda twice=twice: losses_of(model, x, y, twice))
    (said,) = opt.record.fact("sampling").all
    assert str(said).startswith("unknown")


def test_without_a_sampler_the_record_does_not_say_how_batches_were_drawn():
    x, y = digits(torch.float32)
    model = net(torch.float32)
    opt = optimizer(model, Privacy(1.0, 2.0, 0.01, len(x)))
    opt.step(lambda: losses_of(model, x, y, [1, 2]))
    assert not opt.record.fact("sampling").all


# -- checkpoints --------------------------------------------------------------------------------------------


def test_a_state_goes_on_with_the_same_mechanism_and_no_other():
    _, opt = private_run(7)
    saved = opt.state_dict()
    other = optimizer(net(torch.float32), Privacy(1.0, 2.0, 0.02, 1797))
    other.load_state_dict(saved)
    assert other.t == 7
    for privacy in (None, Privacy(0.5, 2.0, 0.02, 1797)):
        with pytest.raises(ValueError, match="privacy"):
            optimizer(net(torch.float32), privacy).load_state_dict(saved)


# -- sites --------------------------------------------------------------------------------------------------


def test_the_contributions_of_sites_add_up_to_the_pooled_sum():
    x, y = digits()
    pooled, site = (optimizer(net(), Privacy(0.0, 2.0, 0.5, 100)) for _ in range(2))
    pooled.estimate(lambda: losses_of(pooled.model, x, y, range(50)))
    parts = []
    for cut in (range(20), range(20, 50)):
        site.estimate(lambda cut=cut: losses_of(site.model, x, y, cut))
        parts.append(site.contribution(noise=False))
        site.engine.abandon()
    assert torch.equal(parts[0] + parts[1], pooled.contribution())


def test_scalars_from_a_server_make_the_step_that_a_replay_makes():
    x, y = digits()
    model = net()
    opt = optimizer(model, None, log=True)
    for t in range(9):
        opt.step(lambda t=t: losses_of(model, x, y, range(t, t + 30)).mean())
    follower = optimizer(net(), None, self_check=False)
    for c in opt.log.c:
        follower.apply([c])
    opt.flush()
    follower.flush()
    assert torch.equal(weights(model), weights(follower.model))


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ((-1.0, 1.0, 0.1, 10), "noise_multiplier"),
        ((1.0, 0.0, 0.1, 10), "clip"),
        ((1.0, INF, 0.1, 10), "clip must be finite"),
        ((1.0, 1.0, 0.0, 10), "sample_rate"),
        ((1.0, 1.0, 1.5, 10), "sample_rate"),
        ((1.0, 1.0, 0.1, 0), "population"),
        ((math.nan, 1.0, 0.1, 10), "noise_multiplier"),
    ],
)
def test_numbers_of_the_mechanism_are_refused_by_name(given, match):
    with pytest.raises(ValueError, match=match):
        Privacy(*given)


@pytest.mark.parametrize(
    ("how", "match"),
    [
        ({"normalize": True, "num_directions": 2}, "normalize must be False"),
        ({"c_clip": 1.0}, "c_clip must be None"),
        ({"mode": "inplace"}, "mode 'factored'"),
        ({"self_check": True}, "self_check must not be True"),
    ],
)
def test_settings_that_would_leak_are_refused_by_name(how, match):
    with pytest.raises(ValueError, match=match):
        optimizer(net(), Privacy(1.0, 1.0, 0.1, 10), **how)


def step_with(closure, *layers, batch=None, **how):
    model = net(torch.float32, *layers)
    opt = optimizer(model, Privacy(1.0, 1.0, 0.1, 10))
    before = weights(model)
    try:
        opt.step(lambda *b: closure(model, *b), batch, **how)
    finally:
        assert torch.equal(before, weights(model))
        assert opt.t == 0


X = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("closure", "layers", "how", "match"),
    [
        (lambda m: m(X).mean(), (), {}, "one loss an example"),
        (lambda m: 0.5, (), {}, "one loss an example"),
        (lambda m: m(X), (), {}, "one loss an example"),
        (lambda m: m(X).mean().expand(8), (), {}, "one number that was expanded to 8"),
        (lambda m: m(X)[:, 0], (nn.BatchNorm1d(32),), {}, "normalises over its batch"),
        (lambda m: m(X)[:, 0], (nn.Dropout(0.5),), {}, "active dropout"),
        (lambda m: m(X)[:, 0] + torch.rand(8), (), {}, "draws random numbers"),
        (lambda m: m(X)[:, 0], (), {"weight": 2.0}, "weight must be None"),
        (lambda m, b: m(b)[:, 0], (), {"batch": X, "paired": True}, "paired must not be True"),
    ],
)
def test_closures_and_models_that_mix_examples_are_refused_by_name(closure, layers, how, match):
    with pytest.raises(ValueError, match=match):
        step_with(closure, *layers, **how)


def test_a_closure_that_changes_its_mind_about_how_many_examples_there_are():
    sizes = iter([8, 7])
    with pytest.raises(ValueError, match="one for each of the same examples"):
        step_with(lambda m: m(X[: next(sizes)])[:, 0])


def test_queries_without_noise_are_refused_by_name():
    from surefoot.zeroth_order.probe import curvature_probe

    model = net(torch.float32)
    opt = optimizer(model, Privacy(1.0, 1.0, 0.1, 10))
    for call in (
        lambda: opt.fd_error(lambda: 0.0),
        lambda: opt.quality(lambda b: model(b)[:, 0], X),
        lambda: curvature_probe(opt, lambda: 0.0),
        lambda: opt.measure_gradient(lambda: model(X).mean()),
    ):
        with pytest.raises(ValueError, match="with privacy"):
            call()


@pytest.mark.parametrize("scalars", [[1.0, 2.0], [math.nan], [math.inf], "c"])
def test_scalars_that_are_no_release_are_refused(scalars):
    opt = optimizer(net(), None)
    with pytest.raises(ValueError, match="scalars"):
        opt.apply(scalars)
    assert opt.t == 0


def test_a_contribution_needs_an_estimate():
    with pytest.raises(ValueError, match="estimate"):
        optimizer(net(), Privacy(1.0, 1.0, 0.1, 10)).contribution()


def test_hooks_are_looked_at_with_a_made_up_batch():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(64, 64, bias=False)

        def forward(self, x):
            return self.a(x) + x @ self.a.weight

    model = Tied()
    opt = optimizer(model, Privacy(1.0, 1.0, 0.1, 10))
    with pytest.warns(UserWarning, match="read outside its module"):
        opt.check_hooks(lambda: model(X).sum(1))
    opt.step(lambda: model(X).sum(1))
    with pytest.raises(ValueError, match="before the first step"):
        opt.check_hooks(lambda: model(X).sum(1))


def test_facts_are_of_the_run_that_was_made():
    record = Record()
    model = net(torch.float32)
    opt = optimizer(model, Privacy(1.5, 2.0, 0.1, 30), record=record, num_directions=2)
    opt.step(lambda: model(X)[:, 0])
    wanted = {
        "mechanism": "poisson-subsampled gaussian", "noise_multiplier": 1.5, "clip_norm": 2.0,
        "clipping": "per example", "sample_rate": 0.1, "population": 30, "adjacency": "add/remove",
        "divisor": "constant", "secret_noise": True, "directions": 2, "public_directions": True,
        "trained_numbers": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip
    for name, value in wanted.items():
        assert record.fact(name).all == (value,), name


def test_c_of_each_example_is_for_public_data_alone():
    x, y = digits()
    model = net()
    opt = optimizer(model, Privacy(0.0, INF, 1.0, 30), num_directions=3)
    before = weights(model)
    each = opt.per_example(lambda: losses_of(model, x, y, range(30)))
    assert each.shape == (30, 3)
    assert torch.equal(before, weights(model))
    # What a step releases without clip and noise is its sum.
    opt.estimate(lambda: losses_of(model, x, y, range(30)))
    assert opt.contribution().tolist() == pytest.approx(each.sum(0).tolist(), rel=1e-9)
    with pytest.raises(ValueError, match="between estimate"):
        opt.per_example(lambda: losses_of(model, x, y, range(30)))
    for privacy in (None, Privacy(1.0, 1.0, 1.0, 30)):
        with pytest.raises(ValueError, match="noise_multiplier 0"):
            optimizer(net(), privacy).per_example(lambda: losses_of(model, x, y, range(30)))


# -- what belongs together ----------------------------------------------------------------------------------


def listed(record, **asked):
    import surefoot

    return {c.details.get("claim"): c for c in surefoot.certificates(record, delta=1e-5, **asked)}


def three_steps(record, *, private=True, state=None):
    x, y = digits(torch.float32)
    model = net(torch.float32)
    privacy = Privacy(2.0, 1.0, 0.5, len(x)) if private else None
    opt = optimizer(model, privacy, record=record)
    if state is not None:
        opt.load_state_dict(state)
    for chosen in (privacy or Privacy(1.0, 1.0, 0.5, len(x))).sampler(steps=3):
        each = lambda chosen=chosen: losses_of(model, x, y, chosen)  # noqa: E731 - a line of a loop
        opt.step(each if private else lambda each=each: each().mean())
    return opt


def test_the_releases_of_two_runs_under_one_seed_are_not_those_of_one():
    pytest.importorskip("dp_accounting", reason="needs the privacy extra")
    record = Record()
    opt = three_steps(record)
    assert listed(record)["P"].verdict == "UNDECIDED"
    three_steps(record, state=opt.state_dict())  # the same run goes on
    assert listed(record)["P"].verdict == "UNDECIDED"
    three_steps(record)
    found = listed(record)["P"]
    assert found.verdict == "NOT_PROMISED"
    assert "one run" in found.reason
    both = Record.concat([three_steps(Record()).record, three_steps(Record()).record])
    assert listed(both)["P"].verdict == "NOT_PROMISED"


@pytest.mark.parametrize("first", [True, False])
def test_losses_of_a_run_without_privacy_beside_a_private_one_are_a_leak(first):
    pytest.importorskip("dp_accounting", reason="needs the privacy extra")
    record = Record()
    three_steps(record, private=first)
    three_steps(record, private=not first)
    found = listed(record)["P"]
    assert found.verdict == "NOT_PROMISED"
    assert "losses of a run without privacy" in found.reason


@pytest.mark.parametrize("clip", [1e300, 1e-300, 1e26])
def test_a_clip_whose_noise_float32_cannot_hold_is_refused(clip):
    with pytest.raises(ValueError, match="clip must be between"):
        Privacy(1.0, clip, 0.1, 10)


@pytest.mark.parametrize("name", ["noise_multiplier", "clip", "sample_rate", "population"])
def test_a_mechanism_cannot_be_changed_under_a_run(name):
    with pytest.raises(AttributeError, match="cannot assign"):
        setattr(Privacy(1.0, 1.0, 0.1, 10), name, 0.5)


def test_numbers_of_other_kinds_become_plain_ones_that_a_log_can_hold():
    privacy = Privacy(np.float32(1.5), np.float64(2.0), np.float32(0.5), np.int64(10))
    assert [type(v) for v in privacy.to_dict().values()] == [float, float, float, int]


# -- what users wrap around it ------------------------------------------------------------------------------


def by_accelerate(model, opt):
    accelerate = pytest.importorskip("accelerate", reason="needs the llm extra")
    return accelerate.Accelerator(cpu=True).prepare(model, opt)


def by_a_scaler(model, opt):
    class Scaled:
        step = staticmethod(lambda *a: torch.amp.GradScaler("cpu", enabled=False).step(opt, *a))

    return model, Scaled


@pytest.mark.parametrize("wrapped", [by_accelerate, by_a_scaler])
def test_wrapped_it_makes_the_same_steps_and_notes_the_same_facts(wrapped):
    x, y = digits(torch.float32)
    ends = []
    for wrap in (lambda *both: both, wrapped):
        model = net(torch.float32)
        privacy = Privacy(1.0, 2.0, 0.02, len(x), secret=seeded(3))
        inner = optimizer(model, privacy)
        seen, opt = wrap(model, inner)
        for chosen in privacy.sampler(steps=6, secret=seeded(4)):
            opt.step(lambda chosen=chosen, seen=seen: losses_of(seen, x, y, chosen))
        inner.flush()
        assert inner.t == 6
        assert inner.record.fact("sampling").all == ("poisson",)
        ends.append(weights(model))
    assert torch.equal(*ends)


def test_compiled_and_under_autocast_a_step_is_private_all_the_same():
    x, y = digits(torch.float32)
    model = net(torch.float32)
    privacy = Privacy(1.0, 2.0, 0.02, len(x))
    compiled = torch.compile(model, backend="eager")
    opt = optimizer(compiled, privacy)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for chosen in privacy.sampler(steps=3):
            opt.step(lambda chosen=chosen: losses_of(compiled, x, y, chosen))
    assert opt.record.fact("sampling").all == ("poisson",)
    assert np.isfinite(opt.record["c"]).all()


def test_a_trainer_refuses_it_by_name(tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the llm extra")
    from surefoot.zeroth_order import ZOTrainer

    settings = transformers.BertConfig(
        vocab_size=30,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=1, report_to="none", use_cpu=True
    )
    trainer = ZOTrainer(
        model=transformers.BertForSequenceClassification(settings), args=arguments,
        train_dataset=[{"input_ids": [1, 2], "labels": 0}] * 4,
        optimizer_cls_and_kwargs=(LOZO, {"privacy": Privacy(1.0, 1.0, 0.5, 4)}),
    )  # fmt: skip
    with pytest.raises(ValueError, match="privacy cannot be used in ZOTrainer"):
        trainer.train()
