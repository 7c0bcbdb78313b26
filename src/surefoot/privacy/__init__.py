"""What a privately trained model leaks: proven values, the last-iterate heuristic, and audits, side by side.

Papers: Steinke, Nasr, Ganesh, Balle, Choquette-Choo, Jagielski, Hayes, Thakurta, Smith and Terzis,
"The last iterate advantage", arXiv 2410.06186 (the heuristic); Steinke, Nasr and Jagielski, arXiv 2305.08846
(auditing in one run); Mahloujifar, Melis and Chaudhuri, arXiv 2410.22235 (the same with a trade-off curve).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from surefoot.privacy.calibrate import Calibration, calibrate
from surefoot.privacy.gaussian import full_batch, gaussian
from surefoot.privacy.last_iterate import Heuristic, last_iterate
from surefoot.privacy.max_steps import Steps, max_steps
from surefoot.privacy.mechanism import Mechanism
from surefoot.privacy.opacus import from_opacus, register_opacus
from surefoot.privacy.report import Report, compare
from surefoot.privacy.standard import Standard, epochs, standard
from surefoot.privacy.value import Curve, Value

if TYPE_CHECKING:
    from surefoot.privacy import audit, canaries, counterexamples
    from surefoot.privacy.canaries import attach_gradient_canaries
    from surefoot.privacy.linearity import LinearityMeter
    from surefoot.privacy.weights import LinearWeights

__all__ = [
    "Calibration", "Curve", "Heuristic", "LinearWeights", "LinearityMeter", "Mechanism", "Report",
    "Standard", "Steps", "Value", "attach_gradient_canaries", "audit", "calibrate", "canaries",
    "compare", "counterexamples", "epochs", "from_opacus", "full_batch", "gaussian", "last_iterate",
    "max_steps", "register_opacus", "standard",
]  # fmt: skip

# What needs torch comes when it is asked for: an epsilon does not.
_WHERE = {
    "LinearWeights": "weights",
    "LinearityMeter": "linearity",
    "attach_gradient_canaries": "canaries",
}


def __getattr__(name: str) -> Any:
    if name in ("audit", "canaries", "counterexamples"):
        return importlib.import_module(f"surefoot.privacy.{name}")
    if name in _WHERE:
        return getattr(importlib.import_module(f"surefoot.privacy.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'surefoot.privacy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
