"""The study's parts fit together, and the report on a model says what is covered."""

import pytest
import torch
from torch import nn

from surefoot import Record, Verdict, certify
from surefoot.zeroth_order import LOZO
from surefoot.zeroth_order.experiments import drift, quadratics, two_forms
from surefoot.zeroth_order.experiments.fitting import fit
from surefoot.zeroth_order.result import LOZOReport
from surefoot.zeroth_order.study import STUDY, ZerothOrderConfig


def test_every_expectation_has_its_guarantee():
    config = ZerothOrderConfig()
    for part in STUDY.parts:
        assert set(part.expects) <= {g.name for g in part.guarantees(config)}, part.name


@pytest.mark.acceptance
def test_drift_is_seen_in_place_and_absent_in_factors():
    record, config = Record(), ZerothOrderConfig()
    drift.run(config, 0, record)
    for guarantee in drift.guarantees(config):
        found = certify(record, guarantee)
        inside = guarantee.quantity.endswith("factored")
        assert found.verdict is (Verdict.KEPT if inside else Verdict.NOT_PROMISED)
    last = {name: record.curves(name).values[0, -1] for name in record.quantities}
    assert (
        last["bfloat16, inplace"] > last["float16, inplace"] > 1e-3 > last["float32, inplace"] > 0
    )
    assert last["bfloat16, factored"] == 0


def test_a_drift_would_be_broken():
    record, arm = Record(), "bfloat16, factored"
    record.append(0, 1, **{arm: 1e-9})
    record.note(0, arm, mode="factored", lr=0.0)
    guarantee = next(g for g in drift.guarantees(None) if g.quantity == "bfloat16, factored")
    assert certify(record, guarantee).verdict is Verdict.BROKEN


def test_blocks_start_where_the_bound_says():
    for block in quadratics.BLOCKS:
        value = sum(
            float((h * x.square()).sum()) / 2
            for h, x in zip(block.hessian(), block.start(), strict=True)
        )
        bound = block.bound()
        steps = block.nu * block.periods
        assert bound.terms[0] == pytest.approx(8 * value / (bound.alpha * steps))


class TestReport:
    def parts(self, lr):
        model = nn.Linear(6, 5, bias=False).double()
        generator = torch.Generator().manual_seed(0)
        data = [torch.randn(20, 6, generator=generator, dtype=torch.float64) for _ in range(4)]
        return LOZO(model, lr, nu=5, v_dist="orthogonal"), model, data

    def test_a_quadratic(self):
        optimizer, model, data = self.parts(1e-6)
        report = LOZOReport(optimizer, model, data, loss=lambda m, x: m(x).square().sum() / 20)
        x = torch.cat(data)
        hessian = 2 * x.T @ x / 80
        values = {r.name: r.value for r in report.rows}
        assert values["L"] == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=0.05)
        assert report.promised
        assert "verdict: covered" in str(report)

    def test_a_useful_rate_is_not_covered(self):
        optimizer, model, data = self.parts(0.5)
        report = LOZOReport(optimizer, model, data, loss=lambda m, x: m(x).square().sum() / 20)
        assert not report.promised
        assert "NOT_PROMISED" in str(report)

    @pytest.mark.parametrize(
        ("settings", "name"),
        [({"v_dist": "gaussian"}, "orthogonal V"), ({"momentum": 0.9}, "no momentum")],
    )
    def test_settings_that_the_theorem_excludes_are_named(self, settings, name):
        optimizer, model, data = self.parts(1e-6)
        optimizer = LOZO(model, 1e-6, nu=5, **({"v_dist": "orthogonal"} | settings))
        report = LOZOReport(optimizer, model, data, loss=lambda m, x: m(x).square().sum() / 20)
        assert not report.promised
        assert f"NOT_PROMISED: {name} fails" in str(report)

    def test_one_batch_has_no_spread(self):
        optimizer, model, data = self.parts(0.5)
        with pytest.raises(ValueError, match="at least two batches, got 1"):
            LOZOReport(optimizer, model, data[:1])


def test_a_training_keeps_the_model_of_its_lowest_validation_loss():
    """Each step of SGD adds 1; six steps of nine go to a first-order arm, and the third was the best."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    best = fit(
        model, torch.optim.SGD(model.parameters(), lr=1.0), 9, 9, lambda rows: -model.weight.sum(), 5, 2,
        lambda: abs(model.weight.item() - 3.1), 0,
    )  # fmt: skip
    assert best == pytest.approx(0.1, abs=1e-6)
    assert model.weight.item() == 3.0


def test_what_hooks_hold_is_not_added_to_the_model_that_was_kept():
    """A look in the middle of a period that is never bettered: the model is what it was then."""
    model = nn.Linear(4, 3)
    optimizer, seen = LOZO(model, 0.1, rank=1, nu=50, self_check=False), []

    def validate():
        seen.append([p.detach().clone() for p in model.parameters()])
        return float(len(seen))

    x = torch.ones(2, 4)
    fit(model, optimizer, 10, 2, lambda rows: model(x).square().sum(), 5, 2, validate, 0)
    assert len(seen) == 2
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), seen[0], strict=True))
    assert not torch.equal(seen[0][0], seen[1][0])
    with torch.no_grad():
        expected = torch.nn.functional.linear(x, *seen[0])
        assert torch.equal(model(x), expected)


def test_the_table_of_both_forms_names_the_seeds_that_ran():
    record = Record()
    for seed, end in ((2, 0.5), (5, 0.25)):
        for arm, more in zip(two_forms.ARMS, (0.0, 0.125), strict=True):
            for step in (0, 60):
                record.update(
                    seed, step, {f"{arm}, {name}": end + more for name in two_forms.COLUMNS}
                )
            for name in ("seconds a step", "seconds", "peak MB of loading", "peak MB of training"):
                record.update(seed, 60, {f"{arm}, {name}": 1.0})
    found = two_forms.tables(STUDY.config(size="standard"), record)
    apart = found["validation loss at the end, by seed"]
    assert apart["seed"].tolist() == [2, 5]
    assert apart["difference"].tolist() == [0.125, 0.125]
