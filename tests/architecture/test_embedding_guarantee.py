"""3.1 to 3.3 on real autoencoders: kept, broken by planted faults, not promised where a fact says so."""

import pytest
import torch

from surefoot import Verdict
from surefoot.architecture import MLPSpace, NetBatch, NetworkAutoencoder

SMALL = MLPSpace(2, 1, 4, 2)
MEDIAN, NINETY, IDENTITY, PLAIN = range(4)


@pytest.fixture
def model():
    return NetworkAutoencoder(SMALL, 8)


def verdicts(model, seeds=2, n=60, fresh=5):
    return [c.verdict for c in model.certificates(seeds, n, fresh)]


def test_what_a_few_seeds_decide_is_kept(model):
    """(20, .5, .05) -> k = 15: a mean of .286 against .5; of 20 networks no rank bounds the 0.9-quantile."""
    found = verdicts(model, seeds=25, n=20, fresh=20)
    assert found == [Verdict.KEPT, Verdict.NOT_PROMISED, Verdict.KEPT, Verdict.KEPT]


@pytest.mark.acceptance
def test_all_are_kept(model):
    assert [c.verdict for c in model.certificates()] == [Verdict.KEPT] * 4


def test_networks_that_are_worse_than_those_of_the_bound_break_it(model, monkeypatch):
    right = model.errors

    def worse(nets, x):
        found = right(nets, x)
        if len(found) == 5:
            found[:4] *= 1e3
        return found

    monkeypatch.setattr(model, "errors", worse)
    assert verdicts(model, seeds=18, n=20)[MEDIAN] is Verdict.BROKEN


def test_an_embedding_that_knows_the_order_of_neurons_breaks_identity(model, monkeypatch):
    right = model.encode
    monkeypatch.setattr(
        model,
        "encode",
        lambda nets: right(nets) + 1e-2 * nets.weights[0][:, :1, :1].flatten(1).float(),
    )
    assert verdicts(model)[IDENTITY] is Verdict.BROKEN


def test_a_plain_network_without_its_last_bias_breaks_exactness(model, monkeypatch):
    right = NetBatch.to_sequential

    def wrong(nets, i):
        module = right(nets, i)
        with torch.no_grad():
            module[-1].bias.add_(1e-2)
        return module

    monkeypatch.setattr(NetBatch, "to_sequential", wrong)
    assert verdicts(model)[PLAIN] is Verdict.BROKEN


def test_a_weight_reading_encoder_promises_no_identity():
    assert verdicts(NetworkAutoencoder(SMALL, 8, "matrix"))[IDENTITY] is Verdict.NOT_PROMISED


def test_too_few_networks_promise_no_bound(model):
    found = verdicts(model, n=20)
    assert found[NINETY] is Verdict.NOT_PROMISED
    assert found[MEDIAN] is Verdict.UNDECIDED


def test_parameters_that_change_meanwhile_promise_no_bound(model, monkeypatch):
    right = model.errors

    def training(nets, x):
        with torch.no_grad():
            next(model.decoder.parameters()).add_(1e-3)
        return right(nets, x)

    monkeypatch.setattr(model, "errors", training)
    assert verdicts(model)[:2] == [Verdict.NOT_PROMISED] * 2


def test_bad_arguments_are_refused_by_name(model):
    for name, value in (("seeds", 0), ("n", 1), ("fresh", 1), ("confidence", 1.0)):
        with pytest.raises(ValueError, match=name):
            model.certificates(**{name: value})


def test_the_bound_covers_the_quantile_as_often_as_it_says():
    """20 000 repeats of 100 exponential errors, whose quantiles are known: at least the nominal 0.95."""
    from surefoot.architecture._quantile import upper_rank

    rng = torch.Generator().manual_seed(0)
    draws = torch.empty(20_000, 100, dtype=torch.float64).exponential_(generator=rng).sort(1).values
    for q in (0.5, 0.9):
        quantile = -torch.log(torch.tensor(1 - q, dtype=torch.float64))
        covered = (draws[:, upper_rank(100, q, 0.95) - 1] >= quantile).double().mean()
        assert covered >= 0.94
    ranks = [(100, 0.5), (400, 0.5), (400, 0.9), (1000, 0.5), (50, 0.95)]
    assert [upper_rank(n, q, 0.95) for n, q in ranks] == [59, 217, 371, 527, None]
