"""Kolmogorov-Arnold networks that are fast and predictable: layers, tangent matrices, promised rates.

Papers: arXiv 2404.19756 (KAN) and 2410.08041 (convergence of gradient descent).
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
