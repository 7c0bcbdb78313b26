"""Audits: lower bounds on epsilon, at a confidence, from what trainings really let out.

One run with many canaries (arXiv 2305.08846, 2410.22235), or many runs with one canary (arXiv 2302.07956).
A high value convicts, a low one proves nothing.
"""

from lazy_loader import attach_stub

from surefoot._moved import behind_function

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
behind_function(__name__, "clopper_pearson")
