"""Runs side by side on the seeds that they share: `surefoot compare`, and `surefoot run --against`."""

from surefoot.comparing.comparison import Claimed, Comparison, Difference, Measured, compare
from surefoot.comparing.page import write_comparison

__all__ = ["Claimed", "Comparison", "Difference", "Measured", "compare", "write_comparison"]
