"""Few steps that rarely draw the example: losses near 0 make Renyi's bound, and delta is made by others."""

import pytest

from surefoot import privacy

from .two_steps import two_steps

SIGMA, RATE, DELTA = 0.8894768441871521, 2.1213045552157598e-05, 1.3649480324832812e-08


@pytest.mark.parametrize("eps", [0.001, 0.002, 0.0044])
def test_delta_of_two_steps_is_tight(eps: float) -> None:
    exact = two_steps(SIGMA, RATE, eps)
    assert exact * (1 - 1e-8) <= privacy.standard(SIGMA, RATE, 2).delta(eps).value <= 1.02 * exact


def test_epsilon_grows_with_the_steps_and_agrees_with_delta() -> None:
    found = [privacy.standard(SIGMA, RATE, steps) for steps in (2, 3, 5, 6, 9)]
    epsilons = [each.epsilon(DELTA).value for each in found]
    assert epsilons == sorted(epsilons)
    assert two_steps(SIGMA, RATE, epsilons[0]) <= DELTA * (1 + 1e-8)
    assert two_steps(SIGMA, RATE, epsilons[0] / 1.01) > DELTA
    for each, eps in zip(found, epsilons, strict=True):
        assert 0.97 * DELTA <= each.delta(eps).value <= 1.03 * DELTA
