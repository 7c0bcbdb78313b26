"""Module paths of version 0.1.0 that have moved: importing an old one gives the module under its new name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# old -> new, both below `surefoot.`
MOVED = {
    "barycenter.checks": "barycenter._solver.checks",
    "barycenter.descent": "barycenter._solver.descent",
    "barycenter.history": "barycenter._solver.history",
    "barycenter.hybrid": "barycenter._solver.hybrid",
    "barycenter.implicit": "barycenter.layer",
    "barycenter.intersection": "barycenter._solver.intersection",
    "barycenter.matmul": "barycenter._spectral.matmul",
    "barycenter.means": "barycenter._solver.means",
    "barycenter.methods": "barycenter._solver.rules",
    "barycenter.newton": "barycenter._solver.newton",
    "barycenter.optimality": "barycenter.probe",
    "barycenter.problem": "barycenter._solver.problem",
    "barycenter.report": "barycenter.result",
    "barycenter.request": "barycenter._solver.request",
    "barycenter.solution": "barycenter._solver.solution",
    "barycenter.solve": "barycenter._solver.solve",
    "barycenter.spectral": "barycenter._spectral.closed_forms",
    "barycenter.start": "barycenter._solver.initial",
    "comparison": "_verdict.comparison",
    "environment": "_run.environment",
    "evidence": "_verdict.evidence",
    "federated.report": "federated.rounds",
    "federated.rules": "federated.server_rule",
    "lora.attach": "lora.doors.peft",
    "lora.companion": "lora._block.companion",
    "lora.compress": "lora._block.compress",
    "lora.federated": "lora.doors.flower",
    "lora.federated_digits": "lora.doors.flower_digits",
    "lora.federated_reference": "lora.reference",
    "lora.folders": "lora._block.state_files",
    "lora.frozen": "lora._block.frozen_factor",
    "lora.gradient": "lora._block.gradient_tap",
    "lora.history": "lora._block.past_blocks",
    "lora.layer": "lora._block.adapted_layer",
    "lora.merge": "lora._block.merge",
    "lora.optimizer_state": "lora._block.optimizer_state",
    "lora.promise": "lora.result",
    "lora.reports": "lora.result",
    "lora.save_guard": "lora._block.save_guard",
    "lora.sketch_constants": "lora._block.sketch_constants",
    "lora.steps_seen": "lora._block.steps_seen",
    "lora.trainer": "lora.doors.transformers",
    "nesterov.constants": "nesterov._optimizer.hyperparameters",
    "nesterov.decreasing": "nesterov.decreasing_nag",
    "nesterov.lanczos": "_numerics.curvature",
    "nesterov.landscape": "nesterov.probe",
    "nesterov.landscape_verdict": "nesterov._ledger.landscape",
    "nesterov.ledger_certificate": "nesterov._ledger.certificate",
    "nesterov.lookahead": "nesterov._optimizer.lookahead",
    "nesterov.noise": "nesterov._probe.noise",
    "nesterov.optimizer_reference": "nesterov.reference",
    "nesterov.path_measures": "nesterov._probe.path_measures",
    "nesterov.projection": "nesterov._probe.projection",
    "nesterov.terms": "nesterov._ledger.lyapunov",
    "nesterov.update": "nesterov._optimizer.update",
    "nesterov.velocity": "nesterov._ledger.velocity",
    "privacy.accounting": "privacy.doors.dp_accounting",
    "privacy.audit.clopper_pearson": "privacy.audit.error_rates",
    "privacy.binomial": "privacy._curves.binomial",
    "privacy.calibrate": "privacy.calibration",
    "privacy.checks": "privacy._checks",
    "privacy.envelope": "privacy._curves.envelope",
    "privacy.gaussian": "privacy.gaussian_mechanism",
    "privacy.grid": "privacy._curves.lattice",
    "privacy.last_iterate": "privacy.heuristic",
    "privacy.linearity": "privacy.probe",
    "privacy.max_steps": "privacy.step_limits",
    "privacy.mills": "_numerics.hockey_stick.mills",
    "privacy.mixture": "_numerics.hockey_stick.mixture",
    "privacy.opacus": "privacy.doors.opacus",
    "privacy.opacus_accountant": "privacy.doors.opacus_accountant",
    "privacy.pairs": "privacy._curves.dominating_pairs",
    "privacy.report": "privacy.comparison",
    "privacy.standard": "privacy.composition",
    "privacy.value": "privacy.result",
    "privacy.weighted": "privacy._curves.weighted",
    "privacy.weights": "privacy.linear_weights",
    "reparam.architectures": "reparam._task.networks",
    "reparam.branches": "reparam._block.branches",
    "reparam.clipping": "reparam._optimizer.clipping",
    "reparam.parameters": "reparam._optimizer.parameters",
    "reparam.strategy": "reparam.doors.flower",
    "reparam.wrapping": "reparam._optimizer.wrapping",
    "run_folder": "_run.folder",
    "terminal": "_run.terminal",
    "zeroth_order.checks": "zeroth_order._engine.checks",
    "zeroth_order.directions": "zeroth_order._engine.directions",
    "zeroth_order.distributed": "zeroth_order._engine.distributed",
    "zeroth_order.evaluation": "zeroth_order._engine.evaluation",
    "zeroth_order.keeping": "zeroth_order.state",
    "zeroth_order.reads": "zeroth_order._engine.weight_uses",
    "zeroth_order.replay": "zeroth_order.replaying",
    "zeroth_order.report": "zeroth_order.result",
    "zeroth_order.self_check": "zeroth_order._engine.self_check",
    "zeroth_order.slots": "zeroth_order._engine.tensors",
    "zeroth_order.streams": "zeroth_order._engine.counter_rng",
    "zeroth_order.theory": "zeroth_order.bounds",
    "zeroth_order.trainer": "zeroth_order.doors.transformers",
}


class MovedModules(MetaPathFinder, Loader):
    """Finds a moved module under its old name; both names are the same object."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for the paths of `MOVED`, None for all others."""
        package, _, name = fullname.partition(".")
        return ModuleSpec(fullname, self) if package == "surefoot" and name in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module's new self in its place."""
        name = module.__name__
        sys.modules[name] = importlib.import_module(f"surefoot.{MOVED[name.partition('.')[2]]}")


class _Behind(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system asks for these, and must not load the target
            raise AttributeError(name)
        target = MOVED[self.__name__.partition(".")[2]]
        return getattr(importlib.import_module(f"surefoot.{target}"), name)


def behind_function(package: str, *names: str) -> None:
    """Keep `from package.name import ...` where `package.name` itself is a function.

    Importing a submodule sets it as an attribute of its package, where it would hide the function of
    that name; one that is there already is left alone.
    """
    for name in names:
        sys.modules.setdefault(f"{package}.{name}", _Behind(f"{package}.{name}"))


def install() -> None:
    """Add the finder once, after those that look at files."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
