"""What the last iterate leaks: proven, heuristic and audited epsilon of DP-SGD on real data."""

from __future__ import annotations

from surefoot.guarantee import Verdict
from surefoot.privacy.config import PrivacyConfig
from surefoot.privacy.experiments import (
    calibration,
    curves,
    engines,
    linear,
    many_runs,
    one_run,
    refuted,
)
from surefoot.study import Part, Study

STUDY = Study(
    name="privacy",
    title="What the last iterate leaks",
    paper="Steinke et al., The last iterate advantage, arXiv 2410.06186; one-run audits: "
    "arXiv 2305.08846, 2410.22235",
    config=PrivacyConfig,
    parts=(
        Part(
            "curves",
            "Epsilon against the number of steps",
            curves.run,
            curves.guarantees,
            figures=curves.figures,
            tables=curves.tables,
            deterministic=True,
            extras=("privacy",),
        ),
        Part(
            "calibration",
            "Noise for a target epsilon",
            calibration.run,
            calibration.guarantees,
            figures=calibration.figures,
            tables=calibration.tables,
            deterministic=True,
            extras=("privacy",),
        ),
        Part(
            "many-runs",
            "One canary, many trainings of softmax regression on digits",
            many_runs.run,
            many_runs.guarantees,
            figures=many_runs.figures,
            tables=many_runs.tables,
            seeds={"quick": 1, "standard": 3, "paper": 5},
            extras=("privacy",),
        ),
        Part(
            "one-run",
            "Thousands of canaries, one training on digits, scores calibrated by shadow runs",
            one_run.run_arms(one_run.MLP, one_run.SOFTMAX),
            one_run.claims_of(one_run.MLP, one_run.SOFTMAX),
            figures=one_run.figures,
            tables=one_run.table_of(one_run.MLP, one_run.SOFTMAX),
            seeds={"quick": 3, "standard": 12, "paper": 30},
            extras=("privacy",),
        ),
        Part(
            "planted-fault",
            "The same audit of noise that is ten times too small, and of honest noise",
            one_run.run_arms(one_run.FAULT, one_run.HONEST),
            one_run.claims_of(one_run.FAULT, one_run.HONEST),
            tables=one_run.table_of(one_run.FAULT, one_run.HONEST),
            expects=one_run.faults(one_run.FAULT),
            seeds={"quick": 2, "standard": 20, "paper": 20},
            extras=("privacy",),
        ),
        Part(
            "refuted",
            "Where the heuristic is wrong",
            refuted.run,
            refuted.guarantees,
            tables=refuted.tables,
            expects=refuted.EXPECTS,
            seeds={"quick": 1, "standard": 3, "paper": 5},
            extras=("privacy",),
        ),
        Part(
            "language",
            "A language model on rated sentences: input-space canaries",
            engines.run_text,
            engines.text_guarantees,
            tables=engines.text_tables,
            expects={engines.VACUOUS: Verdict.VACUOUS, engines.WEAK: Verdict.VACUOUS},
            seeds={"quick": 1, "standard": 5, "paper": 10},
            extras=("privacy",),
        ),
        Part(
            "linearity",
            "How linear is a training?",
            linear.run,
            linear.guarantees,
            tables=linear.tables,
            expects=linear.EXPECTS,
            seeds={"quick": 2, "standard": 10, "paper": 20},
        ),
        Part(
            "opacus",
            "A real Opacus engine, audited",
            engines.run_engine,
            engines.engine_guarantees,
            tables=engines.engine_tables,
            seeds={"quick": 1, "standard": 5, "paper": 3},
            extras=("privacy",),
        ),
    ),
)
