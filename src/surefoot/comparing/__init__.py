"""Runs side by side on the seeds that they share: `surefoot compare`, and `surefoot run --against`."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
