"""Fine-tuning with forward passes only: LOZO, LOZO-M, MeZO and ZO-Adam as torch optimisers.

Papers: Chen, Zhang, Cao, Yuan and Wen, "Enhancing zeroth-order fine-tuning for language models with low-rank
structures", arXiv 2410.07698 (LOZO); Malladi et al., arXiv 2305.17333 (MeZO).
"""

from surefoot.zeroth_order.log import StepLog
from surefoot.zeroth_order.lozo import LOZO
from surefoot.zeroth_order.mezo import MeZO, ZOAdam
from surefoot.zeroth_order.replay import replay
from surefoot.zeroth_order.report import LOZOReport
from surefoot.zeroth_order.self_check import HookWarning
from surefoot.zeroth_order.theory import lozo_bound, lozo_contraction, lozo_moments

__all__ = [
    "LOZO", "HookWarning", "LOZOReport", "MeZO", "StepLog", "ZOAdam", "lozo_bound", "lozo_contraction",
    "lozo_moments", "replay",
]  # fmt: skip
