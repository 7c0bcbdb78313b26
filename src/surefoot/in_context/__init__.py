"""Is this attention stack doing gradient descent? The looped linear transformer, its exact optimum, a probe.

Paper: arXiv 2410.08292 (looped transformers for in-context linear regression).
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
