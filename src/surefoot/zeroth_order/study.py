"""Fine-tuning with forward passes only: exact laws, a computed bound, no drift, and real text."""

from __future__ import annotations

from surefoot.guarantee import Verdict
from surefoot.study import Part, Study
from surefoot.zeroth_order.config import ZerothOrderConfig
from surefoot.zeroth_order.experiments import (
    digits,
    drift,
    few_shot,
    private,
    private_descent,
    private_federated,
    quadratics,
    rank,
    sentences,
    smollm,
    two_forms,
)

STUDY = Study(
    name="zeroth_order",
    title="Fine-tuning with forward passes only",
    paper="Chen et al., LOZO, arXiv 2410.07698; Malladi et al., MeZO, arXiv 2305.17333",
    config=ZerothOrderConfig,
    parts=(
        Part(
            "law",
            "Exact laws on an isotropic quadratic",
            quadratics.run_law,
            quadratics.law_guarantees,
            seeds={"quick": 12, "standard": 30, "paper": 60},
        ),
        Part(
            "bound",
            "The explicit bound on quadratics with known constants",
            quadratics.run_bound,
            quadratics.bound_guarantees,
            tables=quadratics.bound_tables,
            seeds={"quick": 8, "standard": 30, "paper": 64},
        ),
        Part(
            "digits",
            "The explicit bound on softmax regression on digits",
            digits.run,
            digits.guarantees,
            tables=digits.tables,
            seeds={"quick": 6, "standard": 12, "paper": 30},
        ),
        Part(
            "drift",
            "What perturbing does to 16-bit weights",
            drift.run,
            drift.guarantees,
            tables=drift.tables,
            expects={
                f"no drift: {drift.name(d, 'inplace')}": Verdict.NOT_PROMISED for d in drift.DTYPES
            },
            seeds={"quick": 2, "standard": 5, "paper": 10},
        ),
        Part(
            "private",
            "DP-LOZO beside LOZO, DP-SGD and SGD: accuracy for epsilon, equal tuning",
            private.run,
            certificates=private.certificates,
            tables=private.tables,
            figures=private.figures,
            seeds={"quick": 2, "standard": 3, "paper": 5},
        ),
        Part(
            "private-federated",
            "Scalars of sites with noise, beside pooled data and federated averaging",
            private_federated.run,
            certificates=private_federated.certificates,
            tables=private_federated.tables,
            figures=private_federated.figures,
            seeds={"quick": 2, "standard": 3, "paper": 5},
        ),
        Part(
            "private-descent",
            "Descent under clipping and noise where every constant is known",
            private_descent.run,
            private_descent.guarantees,
            private_descent.certificates,
            seeds={"quick": 5, "standard": 8, "paper": 12},
        ),
        Part(
            "adapter",
            "Movie snippets with a real sentence encoder: all methods, equal tuning, equal forwards",
            sentences.run,
            tables=sentences.tables,
            sizes=("standard", "paper"),
            extras=("llm",),
            seeds={"quick": 1, "standard": 3, "paper": 5},
        ),
        Part(
            "rank",
            "Why low rank: gradients of a real encoder's last layer",
            rank.run,
            tables=rank.tables,
            sizes=("standard", "paper"),
            extras=("llm",),
            seeds={"quick": 1, "standard": 3, "paper": 5},
        ),
        Part(
            "language",
            "SmolLM2-135M as a prompted classifier",
            smollm.run,
            tables=smollm.tables,
            sizes=("paper",),
            extras=("llm",),
            seeds={"quick": 1, "standard": 1, "paper": 3},
        ),
        Part(
            "quantised",
            "SmolLM2-135M on its blocks, both copies in one forward, beside the unpacked model",
            two_forms.run,
            tables=two_forms.tables,
            sizes=("paper",),
            extras=("llm",),
            seeds={"quick": 1, "standard": 3, "paper": 3},
        ),
        Part(
            "few-shot",
            "A masked language model with a prompt and a few examples a class, from your own folders",
            few_shot.run,
            tables=few_shot.tables,
            sizes=(),
            extras=("llm",),
            seeds={"quick": 1, "standard": 3, "paper": 5},
        ),
    ),
)
