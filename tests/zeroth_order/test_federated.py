"""Federated scalars: the pooled step, the wire, stateless sites, replay, and what leaves with privacy."""

import json
import math

import pytest
import torch
from flwr.app import Context, RecordDict
from tests.federated.grid import InProcessGrid
from torch import nn

from surefoot import certificates
from surefoot.errors import SurefootError
from surefoot.federated import Visit, make_server_app, to_arrays
from surefoot.privacy import standard
from surefoot.zeroth_order import LOZO, Privacy, federated, replay
from surefoot.zeroth_order.doors.flower import (
    Agreement,
    ScalarStrategy,
    ScalarTask,
    federate_scalars,
    scalar_client_app,
    scalar_strategy,
)
from surefoot.zeroth_order.doors.flower_digits import agreement_of, digits_scalars, digits_task
from surefoot.zeroth_order.federated import combined, log_of
from surefoot.zeroth_order.federated_guarantee import APART, ULPS, WIRE
from surefoot.zeroth_order.federated_run import beside

SITES = 4
SETTINGS = {"lr": 0.02, "rank": 2, "nu": 7, "eps": 1e-3, "scale": "unit", "seed": 3}


@pytest.fixture(scope="module")
def problem():
    return digits_scalars({"num-partitions": SITES, "alpha": 0.1})


def secret_of(visit):
    """Of the site and the round: a run that can be repeated, and is not private."""
    return torch.Generator().manual_seed(1000 * visit.server_round + visit.partition)


def agreed(K=1, privacy=None, trust="server"):
    return Agreement({**SETTINGS, "num_directions": K}, privacy, trust)


def private(sigma=1.0, q=1.0, seed=5, clip=2.0):
    secret = None if seed is None else torch.Generator().manual_seed(seed)
    return Privacy(sigma, clip, q, 1500, secret=secret)


def serve(problem, rounds, agreement, shuffle=0, faults=None, grid=None, seeded=True, **kwargs):
    app = scalar_client_app(lambda config: problem, secret_of=secret_of if seeded else None)
    grid = grid or InProcessGrid(app, SITES, shuffle=shuffle, faults=faults)
    strategy = ScalarStrategy(
        SITES, problem=problem, directions=agreement.directions, privacy=agreement.privacy,
        trust=agreement.trust, node_timeout=0.1, **kwargs,
    )  # fmt: skip
    strategy.start(grid, to_arrays(ScalarTask(problem, agreement).initial(0)), num_rounds=rounds)
    return strategy


def pooled(problem, rounds, K):
    """Plain LOZO on all data at once: nothing of what is tested."""
    model = problem.model()
    optimizer = LOZO(model, **SETTINGS, num_directions=K, self_check=False)
    rows = torch.cat([torch.as_tensor(p) for p in problem.parts])
    found = []
    for _ in range(rounds):
        optimizer.step(lambda: problem.losses(model, rows).mean())
        found.append(optimizer.last["c"])
    optimizer.flush()
    return model, found


@pytest.mark.parametrize("K", [1, 4])
def test_forty_rounds_are_forty_steps_on_the_pooled_data(problem, K, measured):
    sizes = [len(p) for p in problem.parts]
    assert max(sizes) > 2 * min(sizes)
    run = federate_scalars(problem, 40, SITES, agreed(K))
    model, _ = log_of(problem, run.scalars, agreed(K))
    expected, _ = pooled(problem, 40, K)
    apart = max(
        float((a - b).detach().abs().max())
        for a, b in zip(model.parameters(), expected.parameters(), strict=True)
    )
    beside(run, problem, agreed(K), SITES)
    worst = float(run.record[ULPS].max())
    measured(f"8 weights from pooled, 40 steps, K = {K}", "0.0", f"{apart} ({worst:g} ulps)")
    assert worst <= 1
    assert apart <= 1e-7
    assert [str(c.verdict) for c in run.certificates()] == ["KEPT", "UNDECIDED", "KEPT"]


@pytest.mark.parametrize("K", [1, 4])
def test_flower_equals_the_loop_bit_for_bit(problem, K):
    expected = federate_scalars(problem, 8, SITES, agreed(K)).scalars
    for shuffle in (1, 2):
        assert torch.equal(serve(problem, 8, agreed(K), shuffle).scalars, expected)


@pytest.mark.parametrize("trust", ["server", "none"])
def test_a_private_federation_equals_the_loop_on_the_same_secrets(problem, trust):
    def of():
        return agreed(2, private(q=0.2), trust)

    expected = federate_scalars(problem, 8, SITES, of(), secret_of=secret_of).scalars
    found = serve(problem, 8, of(), 1).scalars
    assert torch.equal(found, expected)
    again = serve(problem, 8, agreed(2, private(q=0.2, seed=None), trust), seeded=False).scalars
    assert not torch.equal(found, again)


def test_without_noise_and_clip_privacy_is_the_plain_mean(problem):
    plain = federate_scalars(problem, 10, SITES, agreed()).scalars
    bare = agreed(1, Privacy(0.0, math.inf, 1.0, 1500))
    found = federate_scalars(problem, 10, SITES, bare).scalars
    assert torch.allclose(found, plain, rtol=1e-5, atol=0)
    clipped = federate_scalars(problem, 10, SITES, agreed(1, private(0.0, clip=0.5))).scalars
    assert not torch.allclose(clipped, plain, rtol=1e-2)


def test_bytes_of_the_wire(problem, measured):
    K, strategy = 1, serve(problem, 5, agreed(1))
    rounds = strategy.report.rounds
    assert {r.bytes_up for r in rounds} == {SITES * (128 + 8 * K)}
    # A client that is up to date lacks one round's scalars.
    assert [r.bytes_down for r in rounds] == [SITES * 128] + [SITES * (128 + 8 * K)] * 4
    measured("8 bytes up a client and round, K = 1", "136", str(rounds[-1].bytes_up // SITES))
    assert {c.quantity: str(c.verdict) for c in strategy.certificates()} == {
        ULPS: "UNDECIDED", WIRE: "KEPT", APART: "UNDECIDED", "bytes up": "KEPT", "bytes down": "KEPT",
    }  # fmt: skip


class Leaving(InProcessGrid):
    """Partition 3 comes back in round 4 as a new node, which holds nothing."""

    def send_and_receive(self, messages, *, timeout=None):
        found = super().send_and_receive(messages, timeout=timeout)
        rounds = {m.content["config"]["server-round"] for m in messages if "config" in m.content}
        if rounds == {3}:
            old = next(n for n, p in self.partition_of.items() if p == 3)
            new = self.random.getrandbits(63) | 1
            self.partition_of[new] = self.partition_of.pop(old)
            self.contexts.pop(old)
            self.contexts[new] = Context(
                1, new, {"partition-id": 3, "num-partitions": SITES}, RecordDict(), {}
            )
        return found


def test_half_of_the_sites_a_drop_out_and_a_late_joiner_make_the_same_steps(problem):
    def faults(server_round, partition, reply):
        return None if (server_round, partition) == (2, 1) else reply

    K, app = 2, scalar_client_app(lambda config: problem)
    grid = Leaving(app, SITES, faults=faults)
    strategy = serve(problem, 8, agreed(K), grid=grid)
    expected = federate_scalars(problem, 8, SITES, agreed(K), absent=lambda t, p: (t, p) == (2, 1))
    assert torch.equal(strategy.scalars, expected.scalars)
    # Round 3: partition 1 may lack both rounds before. Round 4: the new node lacks all three.
    down = [r.bytes_down for r in strategy.report.rounds]
    one = 128 + 8 * K
    assert down[2] == 3 * one + 128 + 8 * K * 2
    assert down[3] == 3 * one + 128 + 8 * K * 3
    assert down[4] == 4 * one
    assert strategy.certificates()[1].verdict == "KEPT"
    half = serve(problem, 8, agreed(K), fraction=0.5, seed=1)
    loop = federate_scalars(problem, 8, SITES, agreed(K), fraction=0.5, seed=1)
    assert torch.equal(half.scalars, loop.scalars)
    for run in (strategy.result(), half.result(), loop):
        beside(run, problem, agreed(K), SITES, seed=next(iter(run.record.seeds), 1))
        verdicts = {c.quantity: c for c in run.certificates()}
        assert verdicts[ULPS].verdict == "NOT_PROMISED"
        assert "participation" in verdicts[ULPS].reason
        assert verdicts[APART].verdict == "KEPT"


def test_the_log_is_the_model(problem, tmp_path):
    strategy = serve(problem, 10, agreed(2, private(q=0.3)))
    strategy.save(tmp_path / "log")
    model, _ = log_of(problem, strategy.scalars, strategy.agreed)
    again = replay(problem.model(), tmp_path / "log")
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert problem.evaluate(again) == ScalarTask(problem, strategy.agreed).evaluate(strategy.state)


def test_a_client_that_lost_its_scalars_says_so_and_is_sent_all(problem):
    grid = InProcessGrid(scalar_client_app(lambda config: problem), SITES)
    sent = grid.send_and_receive

    def forgetful(messages, *, timeout=None):
        if any(m.content.get("config", {}).get("server-round") == 4 for m in messages):
            for context in grid.contexts.values():
                if context.node_config["partition-id"] == 2:
                    context.state.clear()
        return sent(messages, timeout=timeout)

    grid.send_and_receive = forgetful
    strategy = serve(problem, 6, agreed(), grid=grid)
    lost = [r.lost for r in strategy.report.rounds if r.lost]
    assert len(lost) == 1
    assert "holds the scalars of 0 rounds" in lost[0][2]
    absent = [r.server_round for r in strategy.report.rounds if r.lost]
    expected = federate_scalars(
        problem, 6, SITES, agreed(), absent=lambda t, p: (t, p) == (absent[0], 2)
    )
    assert torch.equal(strategy.scalars, expected.scalars)


# -- faults -----------------------------------------------------------------------------------------------


def test_a_server_that_divides_by_another_number_breaks_the_pooled_step(problem):
    run = federate_scalars(problem, 5, SITES, agreed())
    wrong = type(run)(run.scalars * (1 + 1e-6), run.record)
    beside(wrong, problem, agreed(), SITES)
    assert wrong.certificates()[0].verdict == "BROKEN"


def test_a_client_that_sends_more_breaks_the_wire(problem):
    def more(server_round, partition, reply):
        if (server_round, partition) == (2, 1):
            reply.content["arrays"] = to_arrays({"s": torch.zeros(1), "loss": torch.zeros(1)})
        return reply

    strategy = serve(problem, 3, agreed(), faults=more)
    assert strategy.certificates()[1].verdict == "BROKEN"
    assert list(strategy.report.rounds[1].rejected) == [1]


def test_a_log_that_lacks_a_round_breaks_the_replay(problem, monkeypatch):
    run = federate_scalars(problem, 9, SITES, agreed())
    monkeypatch.setattr(
        federated, "log_of", lambda problem, scalars, agreed: log_of(problem, scalars[:-1], agreed)
    )
    beside(run, problem, agreed(), SITES)
    assert run.certificates()[2].verdict == "BROKEN"


def test_noise_of_the_sites_and_float32_are_not_the_pooled_step(problem):
    noisy = agreed(1, private(1.0), "none")
    run = federate_scalars(problem, 3, SITES, noisy, secret_of=secret_of)
    run.record.update(0, 1, {ULPS: 0.0})
    found = run.certificates()[0]
    assert found.verdict == "NOT_PROMISED"
    assert "noise" in found.reason


# -- privacy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("trust", "times"), [("server", 1), ("none", SITES)])
def test_variance_of_the_noise(problem, trust, times, measured):
    sigma, C, rounds = 2.0, 0.5, 150
    bare = agreed(4, private(0.0, clip=C))
    noisy = agreed(4, private(sigma, clip=C), trust)
    found = []
    for t in range(1, rounds + 1):
        replies = {}
        for p in range(SITES):
            visit = Visit(p, SITES, t, 0)
            visit.secret = secret_of(visit)
            own = torch.zeros(4, dtype=torch.float64)
            if trust == "none":
                own = own + torch.from_numpy(
                    Privacy(sigma, C, 1.0, 1500, secret=visit.secret).noise(4)
                )
            replies[p] = (own, 1.0)
        found.append(combined(replies, noisy) * 1500)
    variance = float(torch.stack(found).square().mean()) / (sigma * C) ** 2
    # 600 squares of a Gaussian: a standard error of sqrt(2 / 600).
    assert abs(variance / times - 1) < 4 * math.sqrt(2 / (4 * rounds))
    measured(f"noise, trust {trust}: variance / sigma^2 C^2", str(times), f"{variance:.2f}")
    assert combined({}, bare).abs().max() == 0


def test_nothing_else_leaves(problem, tmp_path):
    """No loss, no count, no metric: replies differ between two data sets in their sums alone."""
    heard = []

    def listen(server_round, partition, reply):
        heard.append(reply.content)
        return reply

    for q in (0.1, 0.9):
        serve(problem, 3, agreed(1, private(q=q, seed=None)), faults=listen, seeded=False)
    for content in heard:
        assert set(content) == {"arrays", "metrics", "facts"}
        assert set(content["metrics"]) == {"num-examples", "partition-id"}
        assert content["metrics"]["num-examples"] == 1
        assert list(content["arrays"]) == ["s"]
        # Words that are the same whatever the data.
        said = {"secret_sampling": [True], "sampling": ["poisson"]}
        assert json.loads(content["facts"]["json"]) == said
    out, seen = tmp_path / "final.safetensors", []

    def make(config, task):
        seen.append(scalar_strategy(config, task))
        return seen[0]

    config = {
        "num-partitions": SITES, "num-server-rounds": 3, "noise-multiplier": 1.0, "clip": 2.0,
        "sample-rate": 0.1, "node-timeout": 0.1, "out": str(out),
    }  # fmt: skip
    app = make_server_app(digits_task, make, config)
    grid = InProcessGrid(scalar_client_app(digits_scalars), SITES, run_config=config)
    grid.run_config.pop("out")
    app(grid, Context(1, 1, {}, RecordDict(), {}))
    (strategy,) = seen
    assert not strategy._mean_metrics()
    about = {"participants", "lost", "rejected", "bytes up", "bytes down", "promised bytes up",
             "promised bytes down", WIRE, "messages", "replies", "rounds lacking"}  # fmt: skip
    # What the server measured on its own digits, and the wire, which says nothing of examples.
    assert set(strategy.record.quantities) == about | {"accuracy", "loss"}


def test_the_facts_that_an_accountant_reads(problem):
    strategy = serve(problem, 3, agreed(2, private(1.5, 0.2, None)), seeded=False)
    facts = {k: v.all for k, v in strategy.record.facts.items()}
    wanted = {
        "mechanism": "poisson-subsampled gaussian", "noise_multiplier": 1.5, "clip_norm": 2.0,
        "clipping": "per example", "sample_rate": 0.2, "sampling": "poisson", "steps": 3,
        "adjacency": "add/remove", "secret_noise": True, "secret_sampling": True, "directions": 2,
        "public_directions": True, "divisor": "constant", "trust": "server", "population": 1500,
    }  # fmt: skip
    assert {k: facts[k] for k in wanted} == {k: (v,) for k, v in wanted.items()}
    seeded = serve(problem, 2, agreed(1, private()))
    assert seeded.record.fact("secret_noise").all == (False,)
    assert seeded.record.fact("secret_sampling").all == (False,)
    nobody = serve(problem, 2, agreed(1, private(seed=None), "none"), seeded=False)
    assert nobody.record.fact("secret_noise").all == (True,)


@pytest.mark.parametrize("trust", ["server", "none"])
def test_a_draw_of_sites_amplifies_no_privacy_of_examples(problem, trust):
    """One coin covers a whole site: its examples are not drawn one by one, and the rate is q."""
    of = agreed(1, private(1.5, 0.5, None), trust)
    drawn = {"fraction": 0.5, "secret_draw": True}
    loop = federate_scalars(problem, 4, SITES, of, **drawn)
    some = serve(problem, 4, of, seeded=False, **drawn)
    assert "participants" not in some.record
    for record in (loop.record, some.record):
        assert record.fact("sample_rate").all == (0.5,)
        made = {c.details.get("claim"): c for c in certificates(record, delta=1e-5)}
        assert made["P"].details["epsilon"] == standard(1.5, 0.5, 4).epsilon(1e-5).value
        # c is then over q N times the share, and not over the q N of the descent theorem.
        if trust == "server":
            asked = {a.name: a.holds for a in made["Z"].assumptions}
            assert asked["participation"] is False


def test_one_list_of_certificates(problem):
    strategy = serve(problem, 5, agreed(2, private(1.5, 0.2, None)), seeded=False)
    beside(strategy.result(), problem, strategy.agreed, SITES)
    made = certificates(strategy.record, delta=1e-5)
    claims = [c.details.get("claim") for c in made]
    assert "".join(dict.fromkeys(x for x in claims if x)) == "PHZFWR"
    by = {c.details.get("claim"): c for c in reversed(made)}
    assert by["P"].verdict == "UNDECIDED"
    assert by["P"].details["epsilon"] == standard(1.5, 0.2, 5).epsilon(1e-5).value
    assert by["H"].verdict == "NOT_PROMISED"
    assert "T K = 10 <= 650 trained numbers" in by["H"].reason
    assert by["W"].verdict == by["R"].verdict == "KEPT"


def test_a_round_that_nobody_answers_is_noise_alone(problem):
    quiet = serve(
        problem, 4, agreed(1, private(seed=1)), faults=lambda t, p, r: r if t == 1 else None
    )
    assert len(quiet.scalars) == 4
    expected = [torch.Generator().manual_seed(1)]
    noise = torch.cat(
        [torch.randn(1, generator=expected[0], dtype=torch.float64) for _ in range(4)]
    )
    alone = (2.0 * noise[1:] / 1500).float().double()
    assert torch.equal(quiet.scalars[1:, 0], alone)
    plain = serve(problem, 4, agreed(), faults=lambda t, p, r: r if t == 1 else None)
    assert len(plain.scalars) == 1


def test_a_site_without_data(problem):
    """It has no part in a plain mean, and with privacy nobody knows."""
    parts = [problem.parts[0][:0], *problem.parts[1:]]
    bare = type(problem)(problem.features, problem.labels, parts)
    plain = serve(bare, 2, agreed())
    assert [r.partitions for r in plain.report.rounds] == [[1, 2, 3]] * 2
    assert torch.equal(plain.scalars, federate_scalars(bare, 2, SITES, agreed()).scalars)
    hidden = serve(bare, 2, agreed(1, private()))
    assert [r.partitions for r in hidden.report.rounds] == [[0, 1, 2, 3]] * 2
    expected = federate_scalars(bare, 2, SITES, agreed(1, private()), secret_of=secret_of)
    assert torch.equal(hidden.scalars, expected.scalars)


def test_what_is_refused(problem):
    with pytest.raises(ValueError, match="'secagg' is not built"):
        agreed(1, private(), "secagg")
    with pytest.raises(ValueError, match="trust must be"):
        agreed(1, private(), "me")
    with pytest.raises(ValueError, match="needs privacy"):
        agreed(1, None, "none")
    for setting in ({"normalize": True}, {"c_clip": 1.0}, {"mode": "inplace"}, {"fold": False}):
        with pytest.raises(ValueError, match=next(iter(setting))):
            Agreement({**SETTINGS, **setting})
    with pytest.raises(ValueError, match="extra is not taken"):
        serve(problem, 1, agreed(), extra={"a": torch.zeros(1)})
    strategy = serve(problem, 2, agreed(1, private()))
    start = to_arrays(ScalarTask(problem, strategy.agreed).initial(0))
    with pytest.raises(SurefootError, match="has released 2 rounds"):
        strategy.start(InProcessGrid(scalar_client_app(lambda c: problem), SITES), start, 1)
    with pytest.raises(ValueError, match="needs clip"):
        agreement_of({"noise-multiplier": 1.0}, 10)
    given = {"clip": 1.0, "noise-multiplier": 1.0, "trust": "none"}
    assert agreement_of(given, 10).trust == "none"


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize(
    ("made", "got"),
    [
        (lambda found: found.mean()[None], r"\(1,\)"), (lambda found: found.mean(), r"\(\)"),
        (lambda found: found[:, None], r"\(\d+, 1\)"), (lambda found: found[:-1], r"\(\d+,\)"),
        (lambda found: found.tolist(), "list"),
    ],
)  # fmt: skip
def test_losses_that_are_not_one_an_example(problem, hidden, made, got):
    class Wrong(type(problem)):
        def losses(self, model, rows):
            return made(super().losses(model, rows))

    wrong = Wrong(problem.features, problem.labels, problem.parts)
    of = agreed(1, private() if hidden else None)
    with pytest.raises(ValueError, match=rf"losses must return one loss an example.*got {got}$"):
        federate_scalars(wrong, 1, SITES, of, secret_of=secret_of)


def test_arguments_are_named(problem):
    with pytest.raises(ValueError, match="agreed must be"):
        federate_scalars(problem, 1, SITES, 3)
    with pytest.raises(ValueError, match="problem must be"):
        federate_scalars(3, 1, SITES, agreed())


def test_a_site_that_trusts_nobody(problem):
    def app(**limits):
        return scalar_client_app(lambda config: problem, **limits)

    limits = {"at_least": Privacy(2.0, 1.0, 0.5, 1)}
    for offered, got in (
        (agreed(), "no privacy"),
        (agreed(1, private(3.0)), "trust = 'server'"),
        (agreed(1, private(1.0), "none"), "noise_multiplier 1"),
        (agreed(1, private(2.0, q=0.6), "none"), "sample_rate 0.6"),
    ):
        with pytest.raises(
            SurefootError, match=f"no reply .*noise_multiplier of at least 2.*{got}"
        ):
            serve(problem, 1, offered, grid=InProcessGrid(app(**limits), SITES))
    enough = agreed(1, private(2.0, q=0.5), "none")
    good = serve(problem, 1, enough, grid=InProcessGrid(app(**limits), SITES))
    assert good.report.rounds[0].partitions == [0, 1, 2, 3]
    tired = serve(problem, 3, enough, grid=InProcessGrid(app(most_rounds=2), SITES))
    assert [len(r.partitions) for r in tired.report.rounds] == [4, 4, 0]
    assert "has answered 2 rounds" in tired.report.rounds[2].lost[0]


def test_a_model_without_anything_to_train(problem):
    class Frozen(type(problem)):
        def model(self):
            return super().model().requires_grad_(False)

    frozen = Frozen(problem.features, problem.labels, problem.parts)
    with pytest.raises(ValueError, match="trainable"):
        federate_scalars(frozen, 1, SITES, agreed())


def test_larger_models_send_no_more(problem):
    class Deep(type(problem)):
        def model(self):
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(64, 200), nn.Tanh(), nn.Linear(200, 10)).double()

    deep = Deep(problem.features, problem.labels, problem.parts)
    strategy = serve(deep, 3, agreed())
    assert strategy.report.rounds[2].bytes_up == SITES * 136
    beside(strategy.result(), deep, agreed(), SITES)
    assert [str(c.verdict) for c in strategy.certificates()][:3] == ["KEPT"] * 3


def test_how_batches_were_drawn_is_noted_by_who_drew_them(problem):
    """A server's settings say what is asked for, not what the sites did."""
    there = federate_scalars(problem, 2, 2, agreed(privacy=private(q=0.5)))
    assert there.record.fact("sampling").all == ("poisson",)
    silent = federate_scalars(
        problem, 2, 2, agreed(privacy=private(q=0.5)), absent=lambda t, p: True
    )
    assert not silent.record.fact("sampling").all
