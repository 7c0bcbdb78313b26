"""What a private run notes of itself: all that an accountant asks, and nothing that is not released."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from surefoot._numerics.secret import is_secret
from surefoot._numerics.sizes import wide
from surefoot.record import Fact
from surefoot.zeroth_order._engine.private_sum import PrivateSum

if TYPE_CHECKING:
    from surefoot.zeroth_order._engine.directions import Directions
    from surefoot.zeroth_order._engine.engine import Engine

# Numbers of a step's directions that are squared; more would show beside two forwards.
MANY = 1 << 22
MECHANISM = "poisson-subsampled gaussian"


def privacy_facts(engine: Engine) -> dict[str, Fact]:
    """Of the mechanism; {} of a run without one."""
    privacy = engine.privacy
    if privacy is None:
        return {}
    unclipped = math.isinf(privacy.clip)
    return {
        "mechanism": MECHANISM,
        "private_run": engine.run_id,
        "noise_multiplier": privacy.noise_multiplier,
        "clipping": "none" if unclipped else "per example",
        "clip_norm": "none" if unclipped else privacy.clip,
        "sample_rate": privacy.sample_rate,
        "population": privacy.population,
        # What is given as N is published with the run, and `Privacy` asks for a number that may be.
        "population_public": True,
        "adjacency": "add/remove",
        "divisor": "constant",
        "non_finite": "zero",
        "secret_noise": privacy.secret is None or is_secret(privacy.secret),
        "public_directions": True,
        "directions": engine.settings.num_directions,
        "trained_numbers": sum(x.param.numel() for x in engine.tensors if not x.frozen),
        "releases": "all",
        "released": "noised scalars, weights, step log, direction seed, settings",
    }


def batch_facts(engine: Engine) -> dict[str, Fact]:
    """How the batch of this step was drawn, where a sampler of the mechanism drew it."""
    privacy = engine.privacy
    if privacy is None or privacy.draws.sizes is None or not isinstance(engine.mean, PrivateSum):
        return {}
    if engine.mean.sums is None:
        # Made with somebody else's scalars: nothing was evaluated here.
        return {}
    sizes = privacy.draws.sizes
    drawn = sizes.popleft() if sizes else None
    if drawn != engine.mean.examples:
        # Not how many of which: that is the data's.
        return {"sampling": "unknown (a step had other losses than its sampler drew examples)"}
    return {"sampling": "poisson", "secret_sampling": privacy.draws.secret}


def squared_norm(directions: Directions) -> float | None:
    """||Z||^2, the mean over the directions of a step: a function of the public seed alone.

    None where it would take a pass over more than `MANY` numbers.
    """
    moving = [x for x in directions.tensors if not x.frozen]
    count = directions.settings.num_directions
    if count * sum(math.prod(x.direction_shape()) for x in moving) > MANY:
        return None
    found = []
    for i in range(count):
        for tensor in moving:
            u = wide(directions.held(tensor, i))
            if tensor.dense or tensor.v is None:
                found.append(float(u.double().square().sum()))
                continue
            v, scale = wide(tensor.v), directions.scale_of(tensor)[0]
            # From the two Gram matrices: the product would be as large as the weight.
            found.append(float(((u.T @ u) * (v.T @ v)).sum()) * scale**2)
    return math.fsum(found) / count
