"""Real Opacus trainings read back: engines, accountants, state dicts, checkpoints."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from surefoot import Record, Verdict
from surefoot.errors import FileFormatError, SurefootError
from surefoot.privacy import (
    attach_gradient_canaries,
    audit,
    canaries,
    compare,
    from_opacus,
    last_iterate,
    note_training,
    register_opacus,
    standard,
)
from surefoot.privacy.composition import REFUSED
from surefoot.privacy.doors.opacus import history_of

pytest.importorskip("opacus", reason="needs the privacy extra")


def quiet(function):
    """Opacus warns about secure randomness and uses deprecated hooks of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


def train(accountant="prv", epochs=2, poisson=True, sigma=1.1, each=lambda o, step: None, **sgd):
    from opacus import PrivacyEngine

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(100, 5, generator=generator)
    y = torch.randint(0, 2, (100,), generator=generator)
    model = nn.Linear(5, 2)
    optimizer = torch.optim.SGD(model.parameters(), **({"lr": 0.1} | sgd))
    loader = DataLoader(TensorDataset(x, y), batch_size=10, generator=generator)

    def work():
        engine = PrivacyEngine(accountant=accountant)
        net, opt, data = engine.make_private(
            module=model,
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=sigma,
            max_grad_norm=1.0,
            poisson_sampling=poisson,
        )
        step = 0
        for _ in range(epochs):
            for a, b in data:
                each(opt, step)
                opt.zero_grad()
                nn.functional.cross_entropy(net(a), b).backward()
                opt.step()
                step += 1
        return engine, net, opt, data

    return quiet(work)


def test_engine_history_and_proven_value():
    engine, _, _, data = train()
    assert engine.accountant.history == [(1.1, 0.1, 20)]
    report = from_opacus(engine, 1e-5, data_loader=data)
    theirs = quiet(lambda: engine.get_epsilon(1e-5))
    assert abs(report.standard.value - theirs) <= 0.011
    assert report.heuristic.value == last_iterate(1.1, 0.1, 20).epsilon(1e-5).value
    assert report.sampling == "poisson"


def test_accountant_state_dict_and_checkpoint_agree(tmp_path):
    engine, net, opt, _ = train()
    path = tmp_path / "model.pt"
    engine.save_checkpoint(path=path, module=net, optimizer=opt)
    checkpoint = torch.load(path, weights_only=True)
    expected = from_opacus(engine, 1e-5).to_dict()["rows"]
    for source in (engine.accountant, engine.accountant.state_dict(), checkpoint, path, str(path)):
        assert history_of(source) == [(1.1, 0.1, 20)]
    assert from_opacus(path, 1e-5).to_dict()["rows"] == expected


def test_sampling_on_trust_is_said():
    engine, *_ = train()
    assert any("taken on trust" in note for note in from_opacus(engine, 1e-5).notes)


def test_shuffled_batches_get_no_poisson_value():
    engine, _, _, data = train(poisson=False)
    report = from_opacus(engine, 1e-5, data_loader=data)
    assert report.standard is None
    assert REFUSED in str(report)
    with pytest.raises(ValueError, match="sampling must agree with data_loader, which is shuffled"):
        from_opacus(engine, 1e-5, data_loader=data, sampling="poisson")


def test_own_accountant_sees_constant_batches():
    engine, *_ = train(accountant=register_opacus(), poisson=False)
    with pytest.raises(ValueError, match="every batch had exactly 10 examples"):
        from_opacus(engine, 1e-5)
    assert from_opacus(engine, 1e-5, sampling="shuffled").standard is None


def shown(record):
    """The facts of a record that holds one value of each."""
    return {name: value for name, known in record.facts.items() for (value,) in [known.all]}


RAN = {
    "noise_multiplier": 1.1, "sample_rate": 0.1, "steps": 20, "clipping": "per example",
    "clip_norm": 1.0, "optimizer": "SGD", "momentum": 0.0, "weight_decay": 0.0,
}  # fmt: skip


def test_facts_are_what_opacus_its_optimizer_and_its_loader_show():
    engine, _, opt, data = train()
    record = Record()
    note_training(record, None, engine, optimizer=opt, data_loader=data)
    assert shown(record) == {**RAN, "accountant": "prv", "sampling": "poisson"}
    bare = Record()
    note_training(bare, 0, engine)
    assert set(shown(bare)) == {"noise_multiplier", "sample_rate", "steps", "accountant"}


def seen():
    coins = np.arange(100) % 2 == 0
    return audit.from_scores(np.arange(100.0), coins, delta=1e-5, k=10)


@pytest.mark.acceptance
def test_an_audit_of_shuffled_batches_is_not_promised():
    engine, _, _, data = train(poisson=False)
    # Poisson said by the caller is a claim; shuffled seen by the loader is what ran.
    record = from_opacus(engine, 1e-5, sampling="poisson").record
    assert record.fact("sampling").all == ()
    report = from_opacus(engine, 1e-5, data_loader=data, audit=seen())
    _, proven, heuristic = report.certificates()
    assert proven.verdict is heuristic.verdict is Verdict.NOT_PROMISED
    assert "Poisson sampling fails" in proven.reason


def test_an_audit_of_poisson_batches_is_held_against_the_history():
    engine, _, opt, data = train()
    report = from_opacus(engine, 1e-5, optimizer=opt, data_loader=data, audit=seen())
    _, proven, heuristic = report.certificates()
    assert proven.verdict is heuristic.verdict is Verdict.KEPT
    assert {a.holds for a in proven.assumptions} == {True}
    with pytest.raises(ValueError, match="audit must be of this training"):
        claim = {"claimed": (1.0, 0.1, 20)}
        other = audit.from_scores(
            np.arange(100.0), np.arange(100) % 2 == 0, delta=1e-5, k=10, **claim
        )
        from_opacus(engine, 1e-5, audit=other)


class TestAccountant:
    def test_record_and_certificates(self):
        engine, *_ = train(accountant=register_opacus())
        record = engine.accountant.record
        assert shown(record) == {**RAN, "lr": 0.1, "accountant": "prv+last_iterate"}
        assert record["clip norm"].tolist() == [[1.0] * 20]
        assert len(record.curves("batch size").steps) == 20
        (found,) = engine.accountant.certificates(1e-5)
        assert found.verdict is Verdict.KEPT

    def test_a_learning_rate_that_changed_is_two_facts(self):
        def halve(optimizer, step):
            optimizer.param_groups[0]["lr"] = 0.1 if step < 10 else 0.05

        engine, *_ = train(accountant=register_opacus(), each=halve)
        assert sorted(engine.accountant.record.fact("lr").all) == [0.05, 0.1]

    def test_a_state_of_an_older_version_is_taken(self):
        accountant = quiet(lambda: train(accountant=register_opacus())[0].accountant)
        state = accountant.state_dict()
        del state["observed"]["weight_decays"], state["observed"]["optimizers"]
        fresh = type(accountant)()
        fresh.load_state_dict(state)
        assert fresh.record.fact("optimizer").all == ()
        assert fresh.record.fact("clip_norm").all == (1.0,)

    def test_proven_is_opacus_own_and_the_heuristic_stands_beside(self):
        engine, *_ = train(accountant=register_opacus())
        plain, *_ = train()
        proven = quiet(lambda: engine.get_epsilon(1e-5))
        assert proven == quiet(lambda: plain.get_epsilon(1e-5))
        value = engine.accountant.heuristic(1e-5)
        assert value.kind == "heuristic"
        assert value.value < proven

    def test_learning_rates_and_clip_norms_enter(self):
        def halve(optimizer, step):
            optimizer.param_groups[0]["lr"] = 0.1 * 0.8**step
            optimizer.max_grad_norm = 1.0 + 0.1 * step

        engine, *_ = train(accountant=register_opacus(), each=halve)
        weights = [0.8**t * (1 + 0.1 * t) for t in range(20)]
        expected = last_iterate(1.1, 0.1, 20, weights=weights).epsilon(1e-5)
        got = from_opacus(engine, 1e-5).heuristic
        assert got.value == pytest.approx(expected.value, abs=1e-6)

    def test_momentum_needs_the_optimizer(self):
        engine, _, opt, _ = train(accountant=register_opacus(), momentum=0.9)
        assert any("momentum 0.9" in note for note in from_opacus(engine, 1e-5).notes)
        weights = [1 - 0.9 ** (20 - t) for t in range(20)]
        expected = last_iterate(1.1, 0.1, 20, weights=weights).epsilon(1e-5)
        got = from_opacus(engine, 1e-5, optimizer=opt).heuristic
        assert got.value == pytest.approx(expected.value, abs=1e-6)

    def test_state_travels(self):
        engine, *_ = train(accountant=register_opacus())
        state = engine.accountant.state_dict()
        fresh = type(engine.accountant)()
        fresh.load_state_dict(state)
        assert fresh.observed == engine.accountant.observed
        assert fresh.heuristic(1e-5).value == engine.accountant.heuristic(1e-5).value
        from opacus.accountants import PRVAccountant

        with pytest.raises(ValueError, match="mechanism"):
            PRVAccountant().load_state_dict(state)


def test_history_of_two_noises():
    state = {"history": [(1.0, 0.1, 10), (2.0, 0.1, 10)], "mechanism": "prv"}
    report = from_opacus(state, 1e-5, sampling="poisson")
    sigmas = [1.0] * 10 + [2.0] * 10
    assert report.standard.value == standard(sigmas, 0.1, 20).epsilon(1e-5).value
    assert report.heuristic.value == last_iterate(sigmas, 0.1, 20).epsilon(1e-5).value


def test_lr_history():
    state = {"history": [(1.0, 0.1, 10)], "mechanism": "prv"}
    rates = [0.5**t for t in range(10)]
    got = from_opacus(state, 1e-5, lr_history=rates).heuristic.value
    assert got == last_iterate(1.0, 0.1, 10, weights=rates).epsilon(1e-5).value
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    for wrong, match in (
        (rates[:2], "lr_history must be .* one per step: 10 of them, got 2"),
        # Equal rates count the same, however many: these are too few all the same.
        ([0.1, 0.1], "lr_history must be .* one per step: 10 of them, got 2"),
        ([-0.1] * 10, "lr_history must be at least 0, got -0.1 at step 0"),
        ([math.nan] * 10, "lr_history must be a"),
    ):
        for shown in ({}, {"optimizer": optimizer}):
            with pytest.raises(ValueError, match=match):
                from_opacus(state, 1e-5, lr_history=wrong, **shown)
        with pytest.raises(ValueError, match=match):
            compare(1.0, 0.1, 10, 1e-5, optimizer=optimizer, lr_history=wrong)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"history": [], "mechanism": "prv"}, r"history must hold at least one step, got \[\]"),
        ({"mechanism": "prv"}, "must hold a history"),
        ({"history": [(1.0, 0.1)]}, "must hold .noise_multiplier"),
        ({"history": [(-1.0, 0.1, 3)]}, "noise_multiplier .*got -1.0"),
        (3, "an Opacus engine, an accountant, a state dict .*got int"),
    ],
)
def test_bad_histories(source, message):
    with pytest.raises(ValueError, match=message):
        from_opacus(source, 1e-5)


def test_bad_files(tmp_path):
    with pytest.raises(FileFormatError, match="is no file"):
        from_opacus(tmp_path / "nothing.pt", 1e-5)
    path = tmp_path / "text.pt"
    path.write_text("no checkpoint")
    with pytest.raises(FileFormatError, match="no checkpoint that torch can read"):
        from_opacus(path, 1e-5)


class TestCanaries:
    def test_dirac(self):
        model = nn.Linear(5, 2)
        vectors = canaries.dirac(model, 12, seed=3).to_dense()
        assert (vectors.sum(dim=0) == 1).all()
        assert (vectors.sum(dim=1) == 1).all()
        with pytest.raises(ValueError, match="at most the number of parameters = 12, got 13"):
            canaries.dirac(model, 13, seed=0)

    def test_directions_have_norm_one(self):
        model = nn.Linear(5, 2)
        assert torch.allclose(canaries.random(model, 7, seed=0).norm(dim=1), torch.ones(7))
        assert canaries.constant(model).norm().item() == pytest.approx(1)

    def test_batch_normalisation_is_refused(self):
        model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        with pytest.raises(ValueError, match=r"no batch normalisation, got BatchNorm1d at '1'"):
            canaries.dirac(model, 2, seed=0)

    def test_labels_are_wrong(self):
        data = TensorDataset(torch.randn(50, 3), torch.arange(50) % 5)
        x, y = canaries.mislabeled(data, 50, classes=5, seed=1)
        for a, label in zip(x, y, strict=True):
            at = int((data.tensors[0] == a).all(dim=1).nonzero())
            assert int(data.tensors[1][at]) != int(label)
        zero, label = canaries.blank(data, 4)
        assert zero.shape == (3,)
        assert zero.abs().sum() == 0
        assert label == 4

    def test_injection_moves_the_coordinate_of_an_included_canary(self):
        """Without noise and with rate 1, the sum of every step holds each included canary once."""
        moves = {}
        for on in (False, True):
            holder = {}

            def each(optimizer, step, on=on, holder=holder):
                if on and step == 0:
                    model_size = sum(p.numel() for p in optimizer.params)
                    vectors = torch.eye(model_size)
                    included = torch.arange(model_size) % 2 == 0
                    holder["remove"] = attach_gradient_canaries(
                        optimizer, vectors, included, sample_rate=1.0, seed=0
                    )
                if step == 10 and on:
                    holder["remove"]()

            torch.manual_seed(0)
            with torch.random.fork_rng():
                _, net, _, _ = train(sigma=0.0, epochs=2, poisson=False, each=each)
            moves[on] = torch.cat([p.detach().flatten() for p in net.parameters()])
        # Losses are not linear, so the rest of the gradient answers; ten steps of 0.1 / 10 each are 0.1.
        moved = moves[True] - moves[False]
        assert (moved[0::2] < -0.05).all()
        assert (moved[1::2].abs() < 0.05).all()

    @pytest.mark.parametrize(
        ("vectors", "included", "rate", "message"),
        [
            (torch.eye(3), torch.ones(3, dtype=torch.bool), 0.1, r"shape \(m, 12\)"),
            (torch.eye(12), torch.ones(3, dtype=torch.bool), 0.1, "included must be 12 booleans"),
            (2 * torch.eye(12), torch.ones(12, dtype=torch.bool), 0.1, "norm at most 1"),
            (torch.eye(12), torch.ones(12, dtype=torch.bool), 1.5, "sample_rate .*got 1.5"),
        ],
    )
    def test_bad_injections(self, vectors, included, rate, message, unchecked):
        _, _, opt, _ = train(epochs=0)
        with pytest.raises(ValueError, match=message):
            attach_gradient_canaries(opt, vectors, included, sample_rate=rate, seed=0)

    def test_a_plain_optimizer_is_refused(self):
        opt = torch.optim.SGD(nn.Linear(5, 2).parameters(), lr=0.1)
        with pytest.raises(
            SurefootError, match="dp_optimizer must be a DPOptimizer of Opacus, got SGD"
        ):
            attach_gradient_canaries(
                opt, torch.eye(12), torch.ones(12, dtype=torch.bool), sample_rate=0.1, seed=0
            )


class TestReport:
    def test_rows_and_words(self):
        report = compare(0.5, 0.01, 1000, 1e-6)
        values = [report.standard, report.envelope, report.heuristic, report.full_batch]
        assert [v.value for v in values] == sorted((v.value for v in values), reverse=True)
        lines = str(report).splitlines()
        assert lines[1].split()[:1] == ["standard"]
        assert (
            sum("guarantee" in line and "not a guarantee" not in line for line in lines[1:5]) == 1
        )
        assert any("not a DP guarantee" in line for line in lines)
        assert next(r["name"] for r in report.to_dict()["rows"]) == "standard"

    def test_published_checkpoints_void_the_heuristic(self):
        report = compare(1, 0.1, 20, 1e-5, releases="all")
        assert report.heuristic is None
        assert "void" in str(report)

    def test_no_noise(self):
        assert compare(0, 0.1, 20, 1e-5).standard.value == math.inf

    @pytest.mark.acceptance
    def test_plot(self):
        figure = compare(1.0, 0.1, 5, 1e-5).plot()
        assert next(t.name for t in figure.data) == "proven (guarantee)"
        with pytest.raises(ValueError, match="equal steps"):
            compare([1.0] * 5, 0.1, 5, 1e-5).plot()

    def test_bad_releases(self, unchecked):
        with pytest.raises(ValueError, match="releases must be one of .*got 'some'"):
            compare(1, 0.1, 20, 1e-5, releases="some")
