"""Simulated rates beside what they are held against."""

import math

import numpy as np
from scipy import stats


def error(percent, runs):
    """The standard error of a simulated rate."""
    return 100 * math.sqrt(percent / 100 * (1 - percent / 100) / runs)


def at_most(rate, percent, runs):
    """Whether a rate is at most a number that is no simulation itself, up to two standard errors."""
    return rate <= percent + 2 * error(percent, runs)


def compatible(rate, runs, required, required_runs, side):
    """Whether a rate is not more (`side` "greater"), not less ("less") or no other than a simulated one."""
    table = [
        [percent / 100 * n, (1 - percent / 100) * n]
        for percent, n in ((rate, runs), (required, required_runs))
    ]
    return stats.fisher_exact(np.rint(table), alternative=side).pvalue > 0.001
