"""How well an autoencoder represents networks that it has not seen: numbers, and certificates of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from surefoot import errors
from surefoot._numerics.checks import check_number
from surefoot._numerics.digest import tensors_digest
from surefoot._numerics.seeds import generator_for
from surefoot._sealed.tensors import LABEL
from surefoot.architecture._autoencoder import held_out
from surefoot.architecture._guarantee.embedding import (
    OF,
    embedding_quality,
    function_identity,
    plain_exactness,
)
from surefoot.architecture._guarantee.measuring import measure
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.space import MLPSpace
from surefoot.certificate import Certificate, certify
from surefoot.record import Record


class Certified:
    """What certifies whatever has a space, `encode`, `decode` and parameters."""

    space: MLPSpace
    encoder_kind: Any
    encode: Any
    decode: Any
    state_dict: Any

    def certificate(self, n: int = 400, confidence: float = 0.95, seed: int = 0) -> dict[str, Any]:
        """How well unseen networks are represented: bounds on quantiles that hold for any distribution.

        Parameters
        ----------
        n : int
            Networks, drawn iid with a uniform depth; none of them was trained on.
        confidence : float
            Of each bound.
        seed : int
            Of the networks.

        Returns
        -------
        dict
            networks (list of NetBatch, by source depth), source_depth (n,), inputs (512, D), errors (n, L)
            normalised errors of the hard decoders in the order of networks, winners (L,) shares of networks
            that each decoder is best for, median, mean, median_bound and q90_bound (upper confidence bounds,
            infinite where n is too small) of the best decoder's error, own_depth_median, by_source_depth and
            by_decoder_depth (the same by depth), collapsed (decoders that win less than 2 %), identity_ratio
            (the largest of identity_ratios, (n,)), n, confidence, seed.

        Raises
        ------
        ValueError
            n is below 2, or confidence not in (0, 1).

        Warns
        -----
        UserWarning
            A decoder has collapsed: choosing among depths means less than it seems to.
        """
        n = check_number("n", n, least=2, whole=True)
        confidence = check_number("confidence", confidence, above=0, below=1)
        seed = check_number("seed", seed, whole=True)
        generator = generator_for("surefoot.architecture held out", seed)
        nets = held_out.draw(self.space, n, generator)
        x = self.space.sample_inputs(held_out.POINTS, generator)
        found = self.errors(nets, x)
        depth = torch.cat([torch.full((len(b),), b.depth) for b in nets]).numpy()
        ratios = held_out.identity_ratios(nets, self.encode, generator)
        said = held_out.summary(found, depth, confidence)
        if said["collapsed"]:
            errors.warn(
                f"decoders of depth {said['collapsed']} win less than "
                f"{held_out.COLLAPSED:.0%} of networks: they have collapsed",
                UserWarning,
            )
        return {
            "networks": nets, "source_depth": depth, "inputs": x, "errors": found, **said,
            "identity_ratio": float(ratios.max()), "identity_ratios": ratios, "confidence": confidence,
            "seed": seed,
        }  # fmt: skip

    def certificates(
        self, seeds: int = 160, n: int = 100, fresh: int = 20, confidence: float = 0.95
    ) -> list[Certificate]:
        """3.1 to 3.3 as they came out on networks drawn for the purpose, each seed its own.

        Parameters
        ----------
        seeds : int
            How often networks are drawn.
        n : int
            Networks that each seed takes its bounds from, as in `certificate`.
        fresh : int
            Networks that these bounds are held against.
        confidence : float
            Of the bounds.

        Returns
        -------
        list of Certificate
            Of `embedding_quality(0.5)`, `embedding_quality(0.9)`, `function_identity`, `plain_exactness`.
        """
        seeds = check_number("seeds", seeds, least=1, whole=True)
        n = check_number("n", n, least=2, whole=True)
        fresh = check_number("fresh", fresh, least=2, whole=True)
        confidence = check_number("confidence", confidence, above=0, below=1)
        record, before = Record(), tensors_digest(self.state_dict().items(), LABEL)
        for seed in range(seeds):
            measure(
                record, seed, self.space, self.encode, self.errors, n=n, fresh=fresh,
                confidence=confidence, encoder=self.encoder_kind,
            )  # fmt: skip
        after = tensors_digest(self.state_dict().items(), LABEL)
        record.note(None, OF, frozen=before == after)
        claims = (
            embedding_quality(0.5), embedding_quality(0.9), function_identity(), plain_exactness()
        )  # fmt: skip
        return [certify(record, claim) for claim in claims]

    def errors(self, nets: Sequence[NetBatch], x: Float[Tensor, "P D"]) -> Any:
        """Normalised errors of every hard decoder on networks: an (n, L) float64 array.

        Parameters
        ----------
        nets : sequence of NetBatch
            Networks of the space.
        x : (P, D) tensor
            Inputs at which they are compared with what they decode to.
        """
        return held_out.errors_on(
            list(nets), x, self.encode, lambda z, d: self.decode(z, d, hard=True), self.space.max_depth
        )  # fmt: skip
