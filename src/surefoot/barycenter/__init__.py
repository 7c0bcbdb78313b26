"""Robust averages of Gaussians and covariance matrices by semi-unbalanced optimal transport.

Paper: arXiv 2410.08117.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
