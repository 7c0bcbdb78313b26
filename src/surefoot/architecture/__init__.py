"""The smallest ordinary network that is still accurate: weights and architecture in one descent.

A space of small networks, a multi-scale autoencoder that embeds their functions (arXiv 2410.08339), the
search by gradient descent in that embedding or without it, and exact export of what was found.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
