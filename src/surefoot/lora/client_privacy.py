"""Client-level privacy of Fed-RAC-LoRA: each client's factors clipped as one vector, noise on their sum.

The sketch is public and has orthonormal rows (columns where A trains), so |B A|_F = |B|_F: clipping the
factors is clipping the product, and noise on m r numbers is noise of that size on the product, by sqrt(r / n)
less than on the m n numbers of a matrix. The mean of the noised products is the product of the noised mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.secret import is_secret, secret_generator
from surefoot._numerics.sizes import norm_of
from surefoot.record import Fact

Factors = Mapping[str, Float[Tensor, "rows columns"]]
# What is promised of descent speaks of the plain mean.
OBJECTION = "factors of clients are clipped, and noise is added to their sum"
# Whose facts those of the method are in a private run: its `steps` are a client's, those of privacy rounds.
METHOD = "Fed-RAC-LoRA"


@checked
@dataclass(frozen=True)
class ClientPrivacy:
    """The Gaussian mechanism on the sum of the clients' factors.

    Parameters
    ----------
    noise_multiplier
        sigma: the standard deviation of the noise on every number of the sum, in units of `clip_norm`.
    clip_norm
        C: the most that the factors of one client, all layers together, may have as Frobenius norm; what
        adding or removing one client changes in the sum.
    secret
        The generator of the noise; by default the operating system's. One that is given is no secret, and the
        record says so.

    Raises
    ------
    ValueError
        A number outside of its range.
    """

    noise_multiplier: float
    clip_norm: float
    secret: Generator = field(default_factory=secret_generator, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_number("noise_multiplier", self.noise_multiplier, least=0)
        check_number("clip_norm", self.clip_norm, above=0)

    @property
    def is_secret(self) -> bool:
        """Whether nobody has seeded the noise."""
        return is_secret(self.secret)


def clipped(factors: Factors, clip_norm: float) -> dict[str, Float[Tensor, "rows columns"]]:
    """All factors of a client, in float64, scaled so that their norm together is at most `clip_norm`.

    Where one of them holds NaN or infinity all are 0: no scale bounds what such a client changes in the sum.
    """
    if not all(bool(torch.isfinite(f).all()) for f in factors.values()):
        return {k: torch.zeros_like(f, dtype=torch.float64) for k, f in factors.items()}
    norm = norm_of(factors.values())
    scale = min(1.0, clip_norm / norm) if norm else 1.0
    return {k: scale * f.double() for k, f in factors.items()}


def noise(like: Factors, privacy: ClientPrivacy) -> dict[str, Float[Tensor, "rows columns"]]:
    """sigma C xi for every number of the factors, in float64."""
    size = privacy.noise_multiplier * privacy.clip_norm
    drawn = (
        torch.randn(f.shape, generator=privacy.secret, dtype=torch.float64) for f in like.values()
    )
    return {layer: size * xi for layer, xi in zip(like, drawn, strict=True)}


def privacy_facts(
    privacy: ClientPrivacy, clients: int, sample_rate: float, secret_sampling: bool, run: str
) -> dict[str, Fact]:
    """What an accountant asks of a run; `steps`, the rounds that were released, come with its end.

    Parameters
    ----------
    privacy
        The mechanism.
    clients
        How many there are, which is public.
    sample_rate
        With which probability each is in a round.
    secret_sampling
        Whether nobody else knows who is.
    run
        A name that no other run has.
    """
    return {
        "private_run": run,
        "mechanism": "poisson-subsampled gaussian",
        "noise_multiplier": float(privacy.noise_multiplier),
        "clip_norm": float(privacy.clip_norm),
        "sample_rate": float(sample_rate),
        "sampling": "poisson",
        "clipping": "per client",
        "non_finite": "zero",
        "population": clients,
        "population_public": True,
        "releases": "all",
        "adjacency": "add/remove one client",
        "secret_noise": privacy.is_secret,
        "secret_sampling": secret_sampling,
        "divisor": "constant",
        "expected_clients": float(sample_rate * clients),
        "released": "noised sums, weights, settings",
    }


def noised_mean(
    replies: Mapping[int, Factors], like: Factors, privacy: ClientPrivacy, divisor: float
) -> dict[str, Float[Tensor, "rows columns"]]:
    """(the sum of the clipped factors + sigma C xi) / divisor, in float64 and back to the dtypes of `like`.

    Parameters
    ----------
    replies
        {partition: factors}; there may be none, and noise is returned all the same.
    like
        Factors of the layers, shapes and dtypes that a reply has.
    privacy
        C, sigma and the secret generator.
    divisor
        A constant of the run, as the expected number of clients: the number of those that came says who did.
    """
    added = noise(like, privacy)
    bounded = [clipped(replies[p], privacy.clip_norm) for p in sorted(replies)]
    mean = {}
    for layer, shape_of in like.items():
        total = torch.zeros(shape_of.shape, dtype=torch.float64)
        for factors in bounded:
            total += factors[layer]
        mean[layer] = ((total + added[layer]) / divisor).to(shape_of.dtype)
    return mean
