"""Audits: lower bounds on epsilon, at a confidence, from what trainings really let out.

One run with many canaries (arXiv 2305.08846, 2410.22235), or many runs with one canary (arXiv 2302.07956).
A high value convicts, a low one proves nothing.
"""

from surefoot.privacy.audit.clopper_pearson import Limits, clopper_pearson
from surefoot.privacy.audit.p_value import epsilon_one_run, p_value_one_run
from surefoot.privacy.audit.result import AuditResult
from surefoot.privacy.audit.runs import CalibrationWarning, many_runs, one_run
from surefoot.privacy.audit.scores import from_scores

__all__ = [
    "AuditResult", "CalibrationWarning", "Limits", "clopper_pearson", "epsilon_one_run",
    "from_scores", "many_runs", "one_run", "p_value_one_run",
]  # fmt: skip
