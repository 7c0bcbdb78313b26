"""The guide on covariances of clients: its script, with what it says measured."""

import re
from pathlib import Path

import numpy as np
import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "covariances_of_clients.md"


def ran(seed):
    """What the guide's script has at its end."""
    code = re.search(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)[1]
    assert "default_rng(0)" in code
    names = {}
    exec(code.replace("default_rng(0)", f"default_rng({seed})"), names)
    return names


@pytest.mark.parametrize("seed", range(5))
def test_poisoned_sites_are_ranked_first_and_ruin_nothing_but_the_others(seed):
    found = ran(seed)
    errors = found["errors"]
    assert list(found["suspects"]) == list(found["poisoned"])
    assert 0.03 < errors["SUOT, free mass"] < 0.055
    assert 0.2 < errors["SUOT, fixed mass"] < 0.26
    assert 8 < errors["Wasserstein"] < 17
    assert 35 < errors["mean"] < 69
    assert 0.1 < found["off"](found["private"].cov) < 0.19


def test_the_guide_promises_no_privacy_of_the_average():
    text = " ".join(GUIDE.read_text(encoding="utf-8").split())
    assert "Robust, not private." in text
    assert "No sensitivity of the barycenter is claimed" in text


def test_one_row_moves_what_a_site_sums_by_at_most_the_radius_squared():
    """With the noise taken out, in Frobenius norm, which is what epsilon counts on."""
    found = ran(0)
    found["sigma"] = 0.0
    site, radius = found["sites"][0], found["radius"]
    for row in ([100.0] + [0.0] * 7, [1.0] * 8, found["rows"][0]):
        more = np.vstack([site, row])
        moved = found["noised"](more) * len(more) - found["noised"](site) * len(site)
        assert np.linalg.norm(moved) <= radius**2 * (1 + 1e-9)
