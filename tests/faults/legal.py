"""Values that the generator calls bad and an argument takes with reason; none is dropped unsaid."""

import re
from functools import cache

# Names of arguments for which 0 is as good as any other number, whatever takes them.
ZERO = (
    "seed|block|server_round|random_state|problem|index|partition|step|steps|n|T|violations|upto|dense|samples|"
    "f_star|f0_gap|gap0|dist0_sq|delta0|sigma_add|sigma_mult|sigma2|zeta2|noise|noise_multiplier|sample_rate|"
    "sigma|q|eps|mu|tau|mass_tau|tol|eta|floor|F|F0|Flow|grad_norm2|gap|least|value|"
    "lr|final_lr|momentum|dampening|weight_decay|label_smoothing|proximal_mu|adam_eps|kd_weight|mu_squared|"
    "winner_weight|all_weight|size_penalty|bias_scale|correction|out_feature|in_feature|least_R2|k|k_max|"
    "epochs|warmup_epochs|warmup_steps_per_block|rounds|number|prune|init_std|e|f|g|lo|hi|b|loops|digits|"
    "trivial|tolerance|atol|size|flush_every|node_timeout|fraction|ratio|curvature|max_epsilon|alpha|rate|threshold|"
    "nu|pruned|train_error|structure_bits|scale|releases|basis_dim|head_rows|xi|c|loss0|"
    "max_iter|maxiter|num_iter|shadow|delta|target_epsilon|size_bytes|"
    "per_cell|tp|fp|correct|guesses|min_cluster|max_change|largest|clip|xs"
)
# And those that may be below 0: positions on an axis, values of a function, seeds.
NEGATIVE = (
    "seed|block|random_state|f_star|F|F0|Flow|least|value|lo|e|f|g|b|trivial|scale|threshold|jobs|xs|"
    "structure_bits"
)

LEGAL = [
    (r".*", ZERO, r"zero", "0 is the number of none, or of no step, noise, gap or weight"),
    (r".*", NEGATIVE, r"negative", "a value of a function, a position, or a seed"),
    (r".*", r"X|domains|labels|values|mu_aim|history|index|names|part|classes|steps|extras|mods|probes|sizes|"
     r"statistics|theorems", r"empty", "no rows, no names, no extras: nothing is done with none"),
    (r".*", r"n|T", r"array|list|half", "one or many steps, between whole ones as well"),
    (r".*", r"noise_multiplier|sample_rate", r"list|array", "one number for each step"),
    (r".*", r"b|k|steps|grad_norm2|gap|strides|a|grid_range|partitions|depth|r|taus|tau",
     r"list|array|number", "one number, or one for each"),
    (r".*", r"log|module|latex|path|method|folder|out|note|quantity|paper|title|name|origin|how|of|"
     r"sha256|location|gguf_file|what|licence|source|encoder_id|label|stop|solver|dtype|products|formula|checkpoint|"
     r"resume_dir|text",
     r"words|unknown", "a text of one's own, or a file that is not there yet"),
    (r".*", r"notes|part|statistics|feature_names|target_names|classes|domains|names|texts|domain_names|"
     r"activations|templates|branches", r"of words|dtype of words", "texts of one's own"),
    (r".*", r"settings|details|memory|extra|files|options", r"of objects", "a mapping of one's own values"),
    (r"barycenter\..*", r"tau|temperature|taus", r"inf|inf inside", "the limit: it costs too much to differ"),
    (r"barycenter\..*", r"covs|X|A|B|S|C|init", r"more dimensions", "a batch of problems"),
    (r"barycenter\..*", r"tau", r"number|list|array", "one number, or one for each problem of a batch"),
    (r"barycenter\.(fuse_gaussians|suot_bures_barycenter)", r"means|m", r"None", "inputs that are centred"),
    (r"nesterov\.AgnesParams", r"rho|s|gamma|beta", r"zero", "a run that takes no step is promised nothing"),
    (r"core\.Certificate", r"expected", r"words", "a verdict by its word"),
    (r"prototypes\..*", r"epsilon|max_epsilon|nu|mu_squared", r"inf", "no noise, no limit"),
    (r"prototypes\..*", r"adapt_shots|epsilon|classes|clipped", r"zero", "none of them"),
    (r"prototypes\.comm_cost", r"classes", r"list|array", "one number for each client"),
    (r"architecture\..*", r"n_params|slope|lipschitz", r"zero", "none; a plain rectifier; a constant"),
    (r"architecture\..*", r"slope", r"negative", "a bend the other way"),
    (r"architecture\.quantile_upper_bound", r"values", r"inf inside", "an error without a limit"),
    (r"core\.Guarantee", r"trivial", r"inf|-inf", "a bound that nothing is worse than"),
    (r"core\.Record", r"flush_every", r"inf", "written at the end alone"),
    (r"federated\..*", r"max_examples", r"inf", "no limit"),
    (r"reparam\..*", r"max_norm|curvature", r"inf", "nothing is cut; no step is short enough"),
    (r"nesterov\.(growth_constant|certified_aiming)", r".*", r"number|more dimensions|nan inside|inf inside",
     "measurements, of which one may be missing"),
    (r"kan\..*", r"y|r0", r"more dimensions", "any shape of as many numbers"),
    (r"kan\..*", r"g|eta|a|e|f|steps|b", r"number", "one number for all"),
    (r"kan\.KANLinear", r"base_activation", r"None", "no base branch"),
    (r"in_context\..*", r"clip", r"number", "a norm"),
    (r"prototypes\..*", r"lr", r"callable", "a rate for each round"),
    (r"audit\..*", r"scores", r"bool", "scores of two values"),
    (r"core\.(watch|Watch)", r"overhead", r"zero|inf", "measured once, or whenever it is looked for"),
    (r"core\.(Certificate|Guarantee)", r"axis", r"words", "a text of one's own"),
    (r"core\.Certificate", r"private|private_conditions", r"of words", "names of columns"),
    (r"zeroth_order\.LOZOReport", r"data", r"of words|of None", "theirs: the loss says what it takes"),
    (r".*\.(embed|compress|compact)", r"x", r".*", "theirs: the encoder says what it takes"),
]  # fmt: skip


@cache
def legal(package, name, argument, label):
    """Why a value may be taken, "" where it may not."""
    for call, arg, kind, why in LEGAL:
        parts = ((call, f"{package}.{name}"), (arg, argument), (kind, label))
        if all(re.fullmatch(pattern, text) for pattern, text in parts):
            return why
    return ""
