"""Accelerated descent with a measured certificate: NAG, AGNES, probes of the landscape, the ledger.

Papers: Gupta and Wojtowytsch, arXiv 2410.08395; Gupta, Siegel and Wojtowytsch, arXiv 2302.05515.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
