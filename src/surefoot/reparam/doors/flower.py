"""FedRepOpt on Flower: the strategy, the client, and the app of the study's task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from surefoot._numerics.arguments import checked
from surefoot.errors import need
from surefoot.federated.task import MakeTask, Task
from surefoot.guarantee import Assumption
from surefoot.reparam._task.configured import load_images as load_images
from surefoot.reparam._task.configured import repopt_task as repopt_task
from surefoot.reparam.equivalence import equivalence_holds
from surefoot.reparam.guarantee import federated_trajectory
from surefoot.reparam.task import RepOptTask

with need("flwr", extra="federated", part="surefoot.reparam on Flower"):
    from flwr.clientapp import ClientApp

    from surefoot.federated.apps import make_client_app, strategy_settings
    from surefoot.federated.robust import facts_of_mean
    from surefoot.federated.strategy import DeterministicFedAvg


@checked
class RepOptStrategy(DeterministicFedAvg):
    """Deterministic averaging that sends the multipliers to each node once, and knows what it keeps.

    Parameters
    ----------
    mults
        The multipliers of the plain model, by parameter name; {} in an arm that has none.
    args, kwargs
        As for `DeterministicFedAvg`.
    """

    def __init__(self, *args: Any, mults: Mapping[str, torch.Tensor], **kwargs: Any) -> None:
        super().__init__(*args, extra=dict(mults), **kwargs)
        if mults:
            self.theorems = [(federated_trajectory(), "federate_beside measures it in one process")]

    @property
    def assumption(self) -> Assumption:
        """Whether G2 covers this server rule, and why not; what clients do is in `certificates()` alone."""
        return equivalence_holds(server=str(facts_of_mean(self.rule, self.robust)["server"]))


@checked
def repopt_client_app(make_task: MakeTask | None = None, **settings: Any) -> ClientApp:
    """The ClientApp of a RepOpt task; by default that of `repopt_task`."""
    return make_client_app(make_task or repopt_task, settings)


def repopt_strategy(config: Mapping[str, Any], task: Task) -> RepOptStrategy:
    """The strategy of a run's configuration."""
    assert isinstance(task, RepOptTask)
    mults = task.extra(int(config.get("seed", 0)))
    return RepOptStrategy(**strategy_settings(config), mults=mults)
