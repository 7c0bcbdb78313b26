"""Where rounding decides on which side of ReLU's kink a sum is, one step of both networks is not promised."""

import pytest
import torch
from tests.reparam.nets import batches, loss_of, net, pair
from torch import nn

from surefoot import Record, certify
from surefoot.reparam._block.kinks import ROUNDINGS, all_seen, kinks, outputs
from surefoot.reparam.block import ReparamConv2d
from surefoot.reparam.equivalence import one_step_defect
from surefoot.reparam.guarantee import trajectory
from surefoot.reparam.models import SqueezeExcite

EPS = torch.finfo(torch.float32).eps


@pytest.mark.parametrize(
    ("other", "count"),
    [
        ([0.0, 2.0, 1.0], 0),
        ([10 * EPS, 2.0, 1.0], 1),
        # Not rounding, but another network.
        ([4 * ROUNDINGS * EPS, 2.0, 1.0], 0),
        ([10 * EPS, 2.0, 0.0], 1),
    ],
)
def test_what_is_zero_on_one_side_and_rounding_on_the_other(other, count):
    assert kinks([torch.tensor([0.0, 2.0, 1.0])], [torch.tensor(other)]) == count


def test_outputs_that_do_not_correspond_say_nothing():
    assert kinks([torch.zeros(3)], [torch.zeros(4)]) is None
    assert kinks([torch.zeros(3)], []) is None


def test_a_kink_elsewhere_is_not_seen_and_said_to_be_so():
    assert all_seen(nn.Sequential(ReparamConv2d(3, 4), nn.ReLU(), nn.SiLU()))
    for unseen in (nn.MaxPool2d(2), nn.ReLU6(), SqueezeExcite(4)):
        assert not all_seen(nn.Sequential(nn.ReLU(), unseen))


def test_hooks_are_gone_after_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with outputs(model) as seen:
        model(torch.ones(1, 2))
    model(torch.ones(1, 2))
    assert len(seen) == 1


def test_a_step_on_a_kink_is_not_promised_and_one_that_was_looked_at_is():
    plain, ours, csla, theirs = pair(net(dtype=torch.float32, width=4))
    record = Record()
    for t, batch in enumerate(batches(3, dtype=torch.float32, size=4)):
        one_step_defect(plain, ours, csla, theirs, loss_of(batch), record=record, step=t)
    assert record["sums on ReLU's kink"].tolist() == [[0.0, 0.0, 0.0]]
    assert certify(record, trajectory()).verdict == "KEPT"
    record.append(0, 3, **{"one-step defect": 4e-4, "sums on ReLU's kink": 1.0})
    found = certify(record, trajectory())
    assert found.verdict == "NOT_PROMISED"
    assert "no sum on a kink fails" in found.reason
