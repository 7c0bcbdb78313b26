"""The study's parts fit together, and the report on a model says what is covered."""

import pytest
import torch
from torch import nn

from surefoot import Record, Verdict, certify
from surefoot.zeroth_order import LOZO
from surefoot.zeroth_order.experiments import drift, quadratics
from surefoot.zeroth_order.report import LOZOReport
from surefoot.zeroth_order.study import STUDY, ZerothOrderConfig


def test_every_expectation_has_its_guarantee():
    config = ZerothOrderConfig()
    for part in STUDY.parts:
        assert set(part.expects) <= {g.name for g in part.guarantees(config)}, part.name


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
    record = Record()
    record.append(0, 1, **{"bfloat16, factored": 1e-9})
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
        return LOZO(model, lr, nu=5), model, data

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

    def test_one_batch_has_no_spread(self):
        optimizer, model, data = self.parts(0.5)
        with pytest.raises(ValueError, match="at least two batches, got 1"):
            LOZOReport(optimizer, model, data[:1])
