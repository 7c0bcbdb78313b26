"""The WordNet views behind the real encoder: what one round gains, three seeds."""

import numpy as np
import pytest

from surefoot._problems.tuning import EqualTuning
from surefoot.prototypes import wordnet_views
from surefoot.prototypes.experiments.accuracy import choose
from surefoot.prototypes.experiments.arms import (
    handicapped,
    one_round_arms,
    stopped_early,
    zero_shot,
)
from surefoot.prototypes.experiments.settings import setting_of

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def scores():
    found = {}
    for seed in range(3):
        setting, tuning = setting_of("nouns", "standard", seed), EqualTuning("higher")
        here = {
            "zero-shot": zero_shot(setting),
            "stopped": stopped_early(setting, seed),
            "handicapped": handicapped(setting, 1, seed)[0],
        }
        for arm, each in one_round_arms(setting, "standard", seed).items():
            here[arm] = choose(tuning, arm, each).found
        for arm, score in here.items():
            found.setdefault(arm, []).append(score)
    return found


def mean(scores, arm):
    return float(np.mean([s.test for s in scores[arm]]))


def test_the_views_are_short_where_wordnet_is():
    views = wordnet_views()
    cells = np.zeros((4, 15), dtype=int)
    np.add.at(cells, (views.domains, views.labels), 1)
    short = {
        (views.domain_names[i], views.classes[j]): int(cells[i, j])
        for i, j in np.argwhere(cells < 60)
    }
    assert set(short) == {("example", "animal"), ("example", "plant"), ("kinds", "feeling")}
    assert short["example", "animal"] == 36
    assert short["example", "plant"] == 21
    assert len(set(views.texts)) > 0.98 * len(views)


def test_one_round_gains_twelve_points(scores, measured):
    gain = mean(scores, "cluster_var .1") - mean(scores, "zero-shot")
    measured("cluster_var .1 - zero-shot, points", ">= 12", gain)
    assert gain >= 12
    assert 44 < mean(scores, "zero-shot") < 50
    under = mean(scores, "mean") - mean(scores, "stopped")
    measured("mean, equal tuning - the paper's stop rule", ">= 2.5", under)
    assert under >= 2.5


def test_additive_keeps_up_with_fedpft_at_half_its_bytes(scores, measured):
    behind = mean(scores, "additive") - mean(scores, "FedPFT K=1")
    measured("additive - FedPFT K=1, points", ">= -1", behind)
    assert behind >= -1
    ratio = scores["additive"][0].megabytes / scores["FedPFT K=1"][0].megabytes
    assert ratio <= 0.51
