"""Promises of surefoot.reparam."""

from tests.contract.promise import Promise

from surefoot.reparam import guarantee as reparam

SGD = {
    "client": "sgd", "momentum": 0.0, "weight_decay": 0.0, "proximal_mu": 0.0, "maximize": False,
}  # fmt: skip
NOT_PLAIN = [{"momentum": 0.9}, {"weight_decay": 0.1}, {"client": "adam"}, {"maximize": True}]
RULES = {"client": "sgd", "clip": "none", "norm": "bn"}
CURVATURE = {"curvature": 2.0, "curvature_exact": True}
LOSSES = {"loss": [1.0, 0.5, 0.25]}

PROMISES = [
    Promise(
        reparam.trajectory,
        reparam.trajectory,
        {"one-step defect": [1e-16, 0.0, 2e-16]},
        {"one-step defect": [1e-16, 1e-6, 2e-16]},
        {**RULES, "same_settings": True, "dtype": "float64", "activation": "silu"},
        [{"client": "adam"}, {"clip": "plain"}, {"norm": "per_branch"}, {"same_settings": False}],
    ),
    Promise(
        reparam.noised_law,
        reparam.noised_law,
        {"deviations of the merged noise": [0.5, 1.5, 0.25]},
        {"deviations of the merged noise": [0.5, 7.0, 20.0]},
        {"noised": "branches", "clipping": "per example", "clip": "csla", "client": "sgd"},
        [
            {"noised": "merged gradients"},
            {"clipping": "per batch"},
            {"clip": "unlike"},
            {"client": "adam"},
        ],
    ),
    Promise(
        reparam.federated_trajectory,
        reparam.federated_trajectory,
        {"free-running gap": [1e-15, 2e-15]},
        {"free-running gap": [1e-15, 1e-3]},
        {**RULES, "server": "fedavg", "multipliers": 4, "dtype": "float64", "activation": "silu"},
        [{"server": "fedadam"}, {"multipliers": 0}, {"dtype": "float32"}, {"activation": "relu"}],
    ),
    Promise(
        reparam.clipped_norm,
        reparam.clipped_norm,
        {"clipping norm error": [1e-15]},
        {"clipping norm error": [1e-3]},
        {"clip": "csla", "norm": "bn", "dtype": "float64"},
        [{"clip": "plain"}, {"norm": "per_branch"}, {"dtype": "bfloat16"}],
    ),
    Promise(
        reparam.descent,
        reparam.descent,
        {"excess over descent bound": [-0.1, -0.2, 0.0], **LOSSES},
        {"excess over descent bound": [-0.1, 0.2, 0.0]},
        {**SGD, "curvature_exact": True},
        NOT_PLAIN,
        others={"curvature": 2.0, "curvature_how": "exact", "parameter_dtype": "float64"},
    ),
    Promise(
        reparam.decreasing,
        reparam.decreasing,
        {"rise": [-0.5, -0.25, -0.1], "step size": [0.5] * 3, **LOSSES},
        {"rise": [-0.5, 0.25, -0.1]},
        {**SGD, **CURVATURE},
        [*NOT_PLAIN, {"curvature": 5.0}],
        others={"curvature_how": "exact", "parameter_dtype": "float64"},
    ),
    Promise(
        reparam.rate,
        lambda: reparam.rate(2.0, 1.0),
        {"least squared step": [3.0, 2.0, 1.0], "step size": [0.5] * 3},
        {"least squared step": [3.0, 2.0, 1.5]},  # at most 2 / (0.5 * 3)
        {**SGD, "largest_multiplier": 1.0, "one_lr": True},
        [*NOT_PLAIN, {"largest_multiplier": 3.0}, {"one_lr": False}],
        starts={"least squared step": 1},
    ),
    Promise(
        reparam.costs_of_plain,
        lambda: reparam.costs_of_plain("bytes: ours", "bytes: plain", unit="bytes"),
        {"bytes: ours": [100.0], "bytes: plain": [100.0]},
        {"bytes: ours": [101.0]},
        {"ours.blocks": "plain", "plain.blocks": "plain"},
        [{"ours.blocks": "csla"}, {"plain.blocks": "csla"}],
    ),
]
