"""Client-level privacy of Fed-RAC-LoRA: what is clipped, what is noised, and what leaves."""

import json
import math

import pytest
import torch
from flwr.app import Context, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.federated.grid import InProcessGrid
from tests.lora.test_federated import Quadratics

from surefoot import certificates
from surefoot.errors import SurefootError
from surefoot.federated import make_server_app, to_arrays
from surefoot.lora.client_privacy import ClientPrivacy, clipped, noise, noised_mean
from surefoot.lora.doors.flower import (
    METHOD,
    RacSettings,
    RacStrategy,
    fed_reference,
    merge_factor,
    rac_client_app,
    rac_client_train,
    shared_sketch,
)
from surefoot.lora.doors.flower_digits import digits_problem, rac_strategy
from surefoot.lora.guarantee import Constants
from surefoot.privacy import standard

EPS = torch.finfo(torch.float64).eps


def seeded(seed=0, sigma=1.0, C=0.5):
    return ClientPrivacy(sigma, C, torch.Generator().manual_seed(seed))


def factors(scale, seed, shapes=((6, 2), (4, 2))):
    g = torch.Generator().manual_seed(seed)
    return {
        str(i): scale * torch.randn(s, generator=g, dtype=torch.float64)
        for i, s in enumerate(shapes)
    }


def norm(found):
    return math.sqrt(sum(float(f.double().square().sum()) for f in found.values()))


@pytest.mark.parametrize("train", ["B", "A"])
def test_clipping_the_factors_is_clipping_the_product(train, measured):
    """Two layers of a client, their products clipped together: |B A|_F = |B|_F on an orthonormal sketch."""
    worst = 0.0
    for seed in range(5):
        g = torch.Generator().manual_seed(seed)
        trained, fixed, products = {}, {}, {}
        for layer, (m, n) in {"a": (40, 60), "b": (30, 20)}.items():
            shapes = ((m, 4), (4, n))
            mine, theirs = shapes if train == "B" else shapes[::-1]
            trained[layer] = torch.randn(mine, generator=g, dtype=torch.float64)
            fixed[layer] = shared_sketch(seed, 0, layer, theirs, dtype=torch.float64)

        def product(found, layer, fixed=fixed):
            return found[layer] @ fixed[layer] if train == "B" else fixed[layer] @ found[layer]

        products = {k: product(trained, k) for k in trained}
        total = norm(products)
        worst = max(worst, abs(norm(trained) - total) / total)
        bounded = clipped(trained, 0.7)
        for k, P in products.items():
            by_hand = P * min(1.0, 0.7 / total)
            worst = max(worst, float((product(bounded, k) - by_hand).abs().max()))
    measured("12 product-clip identity", "<= 1e-12", f"{worst:.1e} ({train} trains)")
    assert worst <= 1e-12


@given(
    st.lists(st.floats(1e-12, 1e12), min_size=0, max_size=6), st.floats(1e-6, 1e6),
    st.integers(0, 100),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_one_client_more_moves_the_sum_by_at_most_the_clip(scales, C, seed):
    privacy, like = ClientPrivacy(0.0, C), factors(0.0, 0)
    clients = {p: factors(s, seed + p) for p, s in enumerate(scales)}
    with_one = {**clients, 99: factors(1e3, seed + 99)}
    before, after = (noised_mean(c, like, privacy, 1.0) for c in (clients, with_one))
    moved = norm({k: after[k] - before[k] for k in like})
    assert moved <= C * (1 + 1e-12 * (1 + len(scales)))
    assert norm(clipped(factors(0.0, 0), C)) == 0.0


def test_size_of_the_noise_on_the_product(measured):
    m, n, r, sigma, C = 200, 600, 8, 1.3, 0.7
    A = shared_sketch(0, 0, "w", (r, n), dtype=torch.float64)
    like = {"w": torch.zeros(m, r, dtype=torch.float64)}
    found = float((noised_mean({}, like, seeded(1, sigma, C), 1.0)["w"] @ A).norm())
    expected = sigma * C * math.sqrt(m * r)
    measured(
        "12 noise norm on the product / sigma C sqrt(m r)", "within 3 %", f"{found / expected:.4f}"
    )
    # sqrt(m n) for a matrix that is noised itself.
    assert abs(found / expected - 1) < 0.03
    assert found < 0.2 * sigma * C * math.sqrt(m * n)


def test_the_mean_of_noised_products_is_the_product_of_the_noised_mean(measured):
    worst, like = 0.0, {"w": torch.zeros(30, 4, dtype=torch.float64)}
    for seed in range(20):
        clients = {p: factors(3.0, 10 * seed + p, ((30, 4),)) for p in range(5)}
        clients = {p: {"w": c["0"]} for p, c in clients.items()}
        A = shared_sketch(seed, 0, "w", (4, 50), dtype=torch.float64)
        made = noised_mean(clients, like, seeded(seed), 5.0)["w"] @ A
        E = noise(like, seeded(seed))["w"]
        truth = sum(clipped(c, 0.5)["w"] @ A for c in clients.values()) / 5 + E @ A / 5
        worst = max(worst, float((truth - made).norm() / truth.norm()))
    measured("12 aggregation after noise", "<= 50 eps_mach", f"{worst / EPS:.1f} eps_mach")
    assert worst <= 50 * EPS


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_client_that_is_not_finite_counts_as_nothing(bad):
    like, own = factors(0.0, 0), factors(1.0, 1)
    broken = factors(1.0, 2)
    broken["1"][0, 0] = bad
    assert norm(clipped(broken, 0.5)) == 0.0
    alone = noised_mean({0: own}, like, seeded(), 2.0)
    found = noised_mean({0: own, 1: broken}, like, seeded(), 2.0)
    assert all(torch.equal(found[k], alone[k]) for k in like)
    # The square of 1e200 is beyond float64, and the clip holds all the same.
    assert norm(clipped(factors(1e200, 3), 0.5)) <= 0.5


class Wide(Quadratics):
    """One matrix in float64, whose name is the reference's."""

    def initial(self, seed):
        return {"W": torch.zeros(6, 9, dtype=torch.float64)}


def serve(rounds=4, problem=Wide, partitions=3, shuffle=0, faults=None, seed=0, **kwargs):
    grid = InProcessGrid(rac_client_app(problem), partitions, shuffle=shuffle, faults=faults)
    s = RacSettings(2, 0.1, local_steps=3)
    strategy = RacStrategy(partitions, s, node_timeout=0.1, seed=seed, **kwargs)
    start = to_arrays(problem().initial(seed))
    strategy.start(grid, start, num_rounds=rounds)
    return strategy


def losses():
    return [lambda W, p=p: ((W - (p + 1.0)) ** 2).sum() / 2 for p in range(3)]


def test_flower_equals_the_reference_on_the_same_noise():
    one, two = (serve(shuffle=k, privacy=seeded(7)) for k in (1, 2))
    W0 = Wide().initial(0)["W"]
    expected = fed_reference(losses(), W0, "fed_rac", 2, 4, 3, gamma=0.1, privacy=seeded(7))
    assert torch.equal(one.state["W"], expected.weights)
    assert torch.equal(two.state["W"], expected.weights)
    assert max(expected.aggregation_errors) <= 50 * EPS
    assert one.record.fact("secret_noise").all == (False,)


def test_the_same_run_twice_has_other_noise():
    one, two = (serve(privacy=ClientPrivacy(1.0, 0.5)) for _ in range(2))
    assert not torch.equal(one.state["W"], two.state["W"])
    plain = serve(privacy=ClientPrivacy(0.0, 1e9)).state["W"]
    # Without noise or clip the mean alone is left, of equal weights.
    expected = fed_reference(losses(), Wide().initial(0)["W"], "fed_rac", 2, 4, 3, gamma=0.1)
    assert torch.allclose(plain, expected.weights, rtol=0, atol=1e-14)


def test_what_is_kept_and_sent_is_noised():
    """The exact mean appears nowhere: not in the state, not in the merge order of the next round."""
    sent = []

    def heard(server_round, partition, reply):
        sent.append(reply)
        return reply

    strategy = serve(1, faults=heard, privacy=seeded(3))
    replies = [rac_client_train(
        {"W": Wide().initial(0)["W"]}, lambda w, k, f=f: f(w["W"]), rank=2, seed=0, block=0,
        local_steps=3, gamma=0.1,
    ) for f in losses()]  # fmt: skip
    noised = noised_mean(dict(enumerate(replies)), replies[0], seeded(3), 3.0)
    assert torch.equal(strategy._pending["W"], noised["W"])
    merged = merge_factor(Wide().initial(0), noised, seed=0, block=0, rank=2, train="B")
    assert torch.equal(strategy.state["W"], merged["W"])
    assert {r.content["metrics"]["num-examples"] for r in sent} == {1}
    assert all(set(r.content) == {"arrays", "metrics"} for r in sent)


def test_the_facts():
    strategy = serve(3, fraction=0.5, secret_draw=True, privacy=ClientPrivacy(1.5, 0.5))
    facts = {k: v.all for k, v in strategy.record.facts.items() if not k.startswith(METHOD)}
    assert len(facts.pop("private_run")) == 1
    assert facts == {
        "runtime": ("flower",), "num_partitions": (3,), "fraction": (0.5,), "min_nodes": (1,),
        "mechanism": ("poisson-subsampled gaussian",), "noise_multiplier": (1.5,),
        "clip_norm": (0.5,), "sample_rate": (0.5,), "sampling": ("poisson",), "clipping": ("per client",),
        "adjacency": ("add/remove one client",), "secret_noise": (True,), "secret_sampling": (True,),
        "divisor": ("constant",), "expected_clients": (1.5,), "non_finite": ("zero",), "population": (3,),
        "population_public": (True,), "releases": ("all",), "released": ("noised sums, weights, settings",),
        "steps": (3,),
    }  # fmt: skip
    everyone = serve(3, privacy=ClientPrivacy(1.5, 0.5)).record
    assert everyone.fact("sample_rate").all == (1.0,)
    assert everyone.fact("expected_clients").all == (3.0,)
    coins = torch.Generator().manual_seed(0)
    seen = serve(3, secret_draw=True, secret=coins, privacy=ClientPrivacy(1.5, 0.5)).record
    assert seen.fact("secret_sampling").all == (False,)


def test_the_loop_tells_the_same():
    """Of one mechanism the same facts, whoever runs it, and so one epsilon."""
    privacy = ClientPrivacy(1.5, 0.5)
    W0 = Wide().initial(0)["W"]
    loop = fed_reference(losses(), W0, "fed_rac", 2, 4, 3, gamma=0.1, privacy=privacy).record
    flower = serve(4, privacy=privacy).record
    floor = {"runtime", "num_partitions", "fraction", "min_nodes"}
    told, looped = (
        {k: v.all for k, v in record.facts.items() if not k.startswith(METHOD)}
        for record in (flower, loop)
    )
    # Each its own name, so that two runs in one record are seen.
    assert told.pop("private_run") != looped.pop("private_run")
    assert looped == {k: v for k, v in told.items() if k not in floor}
    made = {c.details.get("claim"): c for c in certificates(loop, delta=1e-5)}
    assert made["P"].verdict == "UNDECIDED"
    assert "not audited" in made["P"].reason
    assert made["P"].details["epsilon"] == standard(1.5, 1.0, 4).epsilon(1e-5).value
    known = fed_reference(losses(), W0, "fed_rac", 2, 1, gamma=0.1, privacy=seeded()).record
    assert known.fact("secret_noise").all == (False,)
    made = {c.details.get("claim"): c for c in certificates(known, delta=1e-5)}
    assert made["P"].verdict == "NOT_PROMISED"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_one_broken_client_leaves_the_others_training(bad):
    """Its factors are not finite: 0 in the loop, and a reply that is refused on Flower."""

    class Broken(Wide):
        def loss(self, weights, visit, step):
            # A finite loss, and a gradient that is not.
            found = super().loss(weights, visit, step)
            return found + Bad.apply(weights["W"], bad) if visit.partition == 1 else found

    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, W, value):
            ctx.value, ctx.like = value, torch.zeros_like(W)
            return W.sum() * 0

        @staticmethod
        def backward(ctx, grad):
            return ctx.like + ctx.value, None

    each = losses()
    each[1] = lambda W: Bad.apply(W, bad)
    W0 = Wide().initial(0)["W"]
    loop = fed_reference(each, W0, "fed_rac", 2, 4, 3, gamma=0.1, privacy=seeded(7))
    assert torch.isfinite(loop.weights).all()
    assert torch.isfinite(torch.tensor(loop.aggregation_errors)).all()
    strategy = serve(4, Broken, privacy=seeded(7))
    assert torch.equal(strategy.state["W"], loop.weights)
    # As without it, over the same constant.
    silent = serve(4, privacy=seeded(7), faults=lambda t, p, r: None if p == 1 else r)
    assert torch.equal(strategy.state["W"], silent.state["W"])


def test_rounds_in_which_nobody_takes_part_are_noise_alone():
    coins, states = torch.Generator().manual_seed(1), []

    class Watched(RacStrategy):
        def combine(self, server_round, good):
            new = super().combine(server_round, good)
            states.append((len(good), self._pending["W"].clone()))
            return new

    grid = InProcessGrid(rac_client_app(Wide), 3)
    strategy = Watched(
        3, RacSettings(2, 0.1), node_timeout=0.1, fraction=0.4, secret_draw=True, secret=coins,
        privacy=ClientPrivacy(1.0, 0.5),
    )  # fmt: skip
    strategy.start(grid, to_arrays(Wide().initial(0)), num_rounds=6)
    assert len(states) == 6
    assert {bool(n) for n, _ in states} == {True, False}
    assert all(bool(f.abs().max() > 0) for _, f in states)
    assert strategy.record.fact("steps").all == (6,)


def test_nothing_else_leaves(tmp_path):
    """Neither who took part, nor counts, nor what a client measured: in the record, the result, the file."""

    class Talking(Wide):
        def loss(self, weights, visit, step):
            visit.record.note(gradients="clients")
            return super().loss(weights, visit, step)

    out, seen = tmp_path / "final.safetensors", []

    def make(config, problem):
        seen.append(
            RacStrategy(3, RacSettings(2, 0.1), node_timeout=0.1, privacy=ClientPrivacy(1.0, 0.5))
        )
        return seen[0]

    app = make_server_app(lambda c: Talking(), make, {"out": str(out), "num-server-rounds": 2})
    app(InProcessGrid(rac_client_app(Talking), 3), Context(1, 1, {}, RecordDict(), {}))
    (strategy,) = seen
    assert set(strategy.record.quantities) == set()
    told = json.loads((tmp_path / "final.safetensors.json").read_text())
    assert told["rounds"] == [{"server_round": 1}, {"server_round": 2}]
    assert not set(told["facts"]) & {"lost", "rejected", "participation"}
    assert not strategy._mean_metrics()


def test_the_list_of_certificates_has_the_epsilon_of_clients():
    record = serve(5, fraction=0.5, secret_draw=True, privacy=ClientPrivacy(1.5, 0.5)).record
    made = {c.details.get("claim"): c for c in certificates(record, delta=1e-5)}
    assert made["P"].verdict == "UNDECIDED"
    assert "not audited" in made["P"].reason
    assert made["P"].details["epsilon"] == standard(1.5, 0.5, 5).epsilon(1e-5).value
    seeded_run = serve(2, privacy=seeded()).record
    made = {c.details.get("claim"): c for c in certificates(seeded_run, delta=1e-5)}
    assert made["P"].verdict == "NOT_PROMISED"
    assert "secret noise fails" in made["P"].reason
    mixed = serve(2, privacy=ClientPrivacy(1.5, 0.5)).record
    mixed.note(0, clipping="per example")
    made = {c.details.get("claim"): c for c in certificates(mixed, delta=1e-5)}
    assert made["P"].verdict == "NOT_PROMISED"


def test_theorems_of_the_plain_mean_are_not_promised():
    strategy = serve(privacy=ClientPrivacy(1.0, 0.5))
    *_, found = strategy.certificates(constants=Constants(1.0, zeta2=9.0), f_star=0.0)
    assert found.verdict == "NOT_PROMISED"
    assert "clipped" in found.reason


def test_the_keys_of_the_app():
    problem = digits_problem({})
    made = rac_strategy({"clip-norm": 0.5, "noise-multiplier": 1.5, "secret-draw": True}, problem)
    assert (made.privacy.clip_norm, made.privacy.noise_multiplier, made.secret_draw) == (
        0.5,
        1.5,
        True,
    )
    assert made.uniform
    assert rac_strategy({}, problem).privacy is None
    with pytest.raises(ValueError, match="needs clip-norm"):
        rac_strategy({"noise-multiplier": 1.0}, problem)


def test_what_is_refused():
    for bad, match in (((-1.0, 1.0), "noise_multiplier"), ((1.0, 0.0), "clip_norm")):
        with pytest.raises(ValueError, match=match):
            ClientPrivacy(*bad)
    with pytest.raises(ValueError, match="uniform must be True with privacy"):
        serve(1, privacy=seeded(), uniform=False)
    with pytest.raises(ValueError, match="fraction = 0.5 needs secret_draw"):
        serve(1, privacy=seeded(), fraction=0.5)
    with pytest.raises(ValueError, match="robust"):
        serve(1, privacy=seeded(), robust="median")
    strategy = serve(2, privacy=seeded())
    with pytest.raises(SurefootError, match="has released 2 rounds"):
        strategy.start(InProcessGrid(rac_client_app(Wide), 3), to_arrays(Wide().initial(0)), 1)
    W0 = torch.zeros(6, 9, dtype=torch.float64)
    with pytest.raises(ValueError, match="privacy must be"):
        fed_reference(losses(), W0, "fed_rac", 2, gamma=0.1, privacy=3)
    for method in ("fedavg_lora", "ffa_lora", "fedavg"):
        with pytest.raises(ValueError, match=f"'fed_rac', got '{method}'"):
            fed_reference(losses(), W0, method, 2, gamma=0.1, privacy=seeded())
    with pytest.raises(ValueError, match="weights must be None"):
        fed_reference(
            losses(), W0, "fed_rac", 2, gamma=0.1, privacy=seeded(), weights=[1.0, 2.0, 3.0]
        )
