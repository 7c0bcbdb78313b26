"""Promises of surefoot.architecture: exactness, pruning, held-out error, Occam's bound, the budget."""

from tests.contract.promise import Promise

from surefoot.architecture import guarantee as architecture

SLICED = {"slicing.rows": "standardised training rows", "slicing.dtype": "float32"}
FOLDED = {
    "folding.rows": "raw training rows", "folding.standardised_in": "float64",
    "folding.dtype_chosen_by": "this check",
}  # fmt: skip
PRUNED = {
    "pruning.compared": "same shape, same rows", "pruning.activations": "Lipschitz",
    "pruning.dtype": "float64",
}  # fmt: skip
CERTIFIED = {
    "certification.rows": "untouched by search, polish and selection",
    "certification.correction": "Bonferroni over the front",
    "certification.compared_on": "rows given for comparison",
}  # fmt: skip
UNCERTIFIED = [
    {"certification.rows": "validation rows"}, {"certification.correction": "none"},
    {"certification.compared_on": "training rows"},
]  # fmt: skip
OCCAM = {
    "occam.loss": "error rate", "occam.rounded": "after folding",
    "occam.counted": "every row of the fit",
}  # fmt: skip

PROMISES = [
    Promise(
        architecture.slicing_exactness,
        architecture.slicing_exactness,
        {"deviation of slicing": [2e-6, 0.0]},
        {"deviation of slicing": [2e-6, 3e-5]},
        SLICED,
        [{"slicing.rows": "other rows"}, {"slicing.dtype": "float16"}],
    ),
    Promise(
        architecture.folding_exactness,
        architecture.folding_exactness,
        {"deviation of folding": [8e-6]},
        {"deviation of folding": [2e-5]},
        FOLDED,
        [
            {"folding.rows": "standardised rows"},
            {"folding.standardised_in": "float32"},
            {"folding.dtype_chosen_by": "the user"},
        ],
    ),
    Promise(
        architecture.pruning_change,
        architecture.pruning_change,
        {
            "change of the outputs": [0.1, 0.2],
            "pruning bound": [0.3, 0.9],
            "size of the outputs": [1.0, 1.0],
            "size of both outputs": [2.0, 2.0],
        },
        {"change of the outputs": [0.1, 0.91]},
        PRUNED,
        [
            {"pruning.compared": "other shapes"},
            {"pruning.activations": "a step"},
            {"pruning.dtype": "float32"},
        ],
    ),
    *(
        Promise(
            architecture.held_out_error,
            lambda kind=kind: architecture.held_out_error(kind),
            {f"{kind} on fresh rows, lower limit": low, f"certified {kind}": limit},
            {f"{kind} on fresh rows, lower limit": [v + 0.5 for v in limit]},
            CERTIFIED,
            UNCERTIFIED,
        )
        for kind, low, limit in (
            ("error rate", [0.2, 0.02], [0.4, 0.06]),
            ("median absolute error", [1.0, 0.5], [1.5, 0.9]),
            ("90% absolute error", [3.0, 2.0], [4.0, 3.0]),
        )
    ),
    Promise(
        architecture.occam_error,
        architecture.occam_error,
        {"error rate of the rounded network, lower limit": [0.05], "Occam bound": [0.6]},
        {"error rate of the rounded network, lower limit": [0.61]},
        OCCAM,
        [
            {"occam.loss": "cross-entropy"},
            {"occam.rounded": "before folding"},
            {"occam.counted": "validation rows"},
        ],
    ),
    Promise(
        architecture.search_time,
        architecture.search_time,
        {"wall seconds": [3.2], "time budget": [2.0]},
        {"wall seconds": [3.4]},
        {"budget.measure": "seconds of the wall clock"},
        [{"budget.measure": "steps"}],
    ),
]
