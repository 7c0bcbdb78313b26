"""Plain networks on the devices that train as multi-branch ones: exactness, cost, accuracy."""

from __future__ import annotations

from surefoot.reparam.config import ReparamConfig
from surefoot.reparam.experiments import accuracy, costs, exactness
from surefoot.study import Part, Study

STUDY = Study(
    name="reparam",
    title="FedRepOpt: a plain network on the trajectory of a multi-branch one",
    paper="FedRepOpt, arXiv 2409.15898; RepOptimizers, arXiv 2205.15242",
    config=ReparamConfig,
    parts=(
        Part(
            "exactness",
            "Exactness: one step, many steps, clipped steps",
            exactness.run,
            exactness.guarantees,
            tables=exactness.tables,
            seeds={"quick": 2, "standard": 5, "paper": 10},
        ),
        Part(
            "costs",
            "Cost on the device and on the wire",
            costs.run,
            costs.guarantees,
            tables=costs.tables,
            deterministic=True,
        ),
        Part(
            "accuracy",
            "Accuracy of four arms by depth and by cut, equally tuned, nothing promised",
            accuracy.run,
            tables=accuracy.tables,
            seeds={"quick": 1, "standard": 3, "paper": 3},
        ),
        Part(
            "origins",
            "Where the scales come from, nothing promised",
            accuracy.run_origins,
            tables=accuracy.origin_tables,
            sizes=("standard", "paper"),
            seeds={"quick": 1, "standard": 3, "paper": 3},
        ),
    ),
)
