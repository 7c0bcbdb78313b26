"""Fine-tuning with forward passes only: LOZO, LOZO-M, MeZO and ZO-Adam as torch optimisers.

Papers: Chen, Zhang, Cao, Yuan and Wen, "Enhancing zeroth-order fine-tuning for language models with low-rank
structures", arXiv 2410.07698 (LOZO); Malladi et al., arXiv 2305.17333 (MeZO).
"""

from lazy_loader import attach_stub

from surefoot._moved import behind_function

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
behind_function(__name__, "replay")
