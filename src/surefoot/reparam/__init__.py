"""FedRepOpt (arXiv 2409.15898): a plain network that trains exactly like a multi-branch one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from surefoot.reparam.adam import RepAdamW
    from surefoot.reparam.block import ReparamConv2d
    from surefoot.reparam.clipping import clip_csla_norm_
    from surefoot.reparam.cost import cost_report
    from surefoot.reparam.equivalence import (
        Shadow,
        equivalence_gap,
        equivalence_holds,
        one_step_defect,
    )
    from surefoot.reparam.merging import (
        branch_scales,
        convert_to_csla,
        convert_to_plain,
        grad_mults,
        merge_state,
    )
    from surefoot.reparam.models import repopt_ghost, repopt_vgg
    from surefoot.reparam.optimizer import RepSGD
    from surefoot.reparam.parameters import decay_groups
    from surefoot.reparam.probe import DescentMonitor, safe_lr
    from surefoot.reparam.scales import Scales
    from surefoot.reparam.search import hyper_search
    from surefoot.reparam.strategy import RepOptStrategy, repopt_client_app
    from surefoot.reparam.wrapping import wrap

_WHERE = {
    "DescentMonitor": "probe",
    "RepAdamW": "adam",
    "RepOptStrategy": "strategy",
    "RepSGD": "optimizer",
    "ReparamConv2d": "block",
    "Scales": "scales",
    "Shadow": "equivalence",
    "branch_scales": "merging",
    "clip_csla_norm_": "clipping",
    "convert_to_csla": "merging",
    "convert_to_plain": "merging",
    "cost_report": "cost",
    "decay_groups": "parameters",
    "equivalence_gap": "equivalence",
    "equivalence_holds": "equivalence",
    "grad_mults": "merging",
    "hyper_search": "search",
    "merge_state": "merging",
    "one_step_defect": "equivalence",
    "repopt_client_app": "strategy",
    "repopt_ghost": "models",
    "repopt_vgg": "models",
    "safe_lr": "probe",
    "wrap": "wrapping",
}
__all__ = [
    "DescentMonitor", "RepAdamW", "RepOptStrategy", "RepSGD", "ReparamConv2d", "Scales", "Shadow",
    "branch_scales", "clip_csla_norm_", "convert_to_csla", "convert_to_plain", "cost_report",
    "decay_groups", "equivalence_gap", "equivalence_holds", "grad_mults", "hyper_search",
    "merge_state", "one_step_defect", "repopt_client_app", "repopt_ghost", "repopt_vgg", "safe_lr",
    "wrap",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Looked up when first used: the strategy needs Flower, nothing else here does.
    if name not in _WHERE:
        raise AttributeError(f"module 'surefoot.reparam' has no attribute {name!r}")
    return getattr(importlib.import_module(f"surefoot.reparam.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
