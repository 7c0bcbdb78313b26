"""What is promised of an autoencoder: unseen networks (3.1), function identity (3.2), plain networks (3.3).

Columns, one step a seed: the shares of fresh networks above a bound, the identity ratio, the deviation of
plain networks and the size of the terms it rounds with. Facts, of "held out": networks, decoding, frozen, n,
confidence, encoder, gates, dtype.
"""

from __future__ import annotations

from surefoot.architecture._quantile import upper_rank
from surefoot.guarantee import Assumption, Curve, Guarantee, assume_fact
from surefoot.record import Fact, Record

OF = "held out"
IID, HARD, ZERO_ONE = "iid, not trained on", "hard", "0 or 1, one activation a neuron"
IDENTITY, DEVIATION, TERMS = (
    "identity ratio",
    "deviation of plain networks",
    "terms of their outputs",
)
SAME, EXACT = 1e-5, 1e-5
DERIVED = "derived for surefoot.architecture"


def share_above(q: float) -> str:
    """The column of one quantile: the share of fresh networks whose error is above its bound."""
    return f"share above the {q:g} bound"


def _is(record: Record, name: str, fact: str, value: Fact) -> Assumption:
    words = f"{fact}: {value}"
    return assume_fact(record, fact, name, words, lambda v: v == value, of=OF)


def embedding_quality(q: float = 0.5) -> Guarantee:
    """3.1: at most 1 - q of fresh networks are represented worse than the bound on the q-quantile says.

    The bound is the k-th smallest error of n networks (`NetworkAutoencoder.certificate`). By exchangeability
    a fresh one exceeds it with probability (n + 1 - k) / (n + 1) in the mean over both draws, and k / (n + 1)
    is at least q.

    Parameters
    ----------
    q
        0.5 or 0.9.
    """

    def enough(record: Record) -> Assumption:
        confidences = record.fact("confidence", OF).all

        def holds(n: Fact) -> bool:
            ranks = [upper_rank(int(n), q, float(c)) for c in confidences]
            return all(k is not None and k >= q * (int(n) + 1) for k in ranks)

        found = assume_fact(
            record, "n", "enough networks", "the k-th smallest exists, k >= q (n + 1)", holds, of=OF
        )
        if not confidences or record.fact("confidence", OF).missing:
            return Assumption(found.name, found.requires, found.measured, None, found.how)
        return found

    return Guarantee(
        name=f"3.1: the {q:g}-quantile of unseen networks' errors",
        statement=f"P(e > e_(k)) <= {1 - q:g} for a fresh network, e_(k) the bound from n others",
        latex=rf"P(e > e_{{(k)}}) \le {1 - q:g}",
        source=f"order statistics, any distribution; {DERIVED}",
        quantity=share_above(q), sense="upper", holds_in="expectation", bound=lambda record: 1 - q,
        value_range=(0.0, 1.0), trivial=1.0, of=OF,
        assumptions=lambda record: (
            _is(record, "fresh networks", "networks", IID), _is(record, "decoders", "decoding", HARD),
            _is(record, "the same autoencoder throughout", "frozen", True), enough(record),
        ),
    )  # fmt: skip


def function_identity() -> Guarantee:
    """3.2: a network and a copy with permuted hidden neurons have one embedding, where the encoder probes.

    The ratio is |z(N) - z(PN)| over the median distance of two networks; the largest over networks.
    """
    return Guarantee(
        name="3.2: equal functions have equal embeddings",
        statement="max_N |z(N) - z(PN)| / median |z(N) - z(N')| <= 1e-5",
        latex=r"\max_N \|z(N) - z(PN)\| / \mathrm{median}\,\|z(N) - z(N')\| \le 10^{-5}",
        source=f"the embedding reads outputs at fixed inputs only; {DERIVED}",
        quantity=IDENTITY, sense="upper", holds_in="every run", bound=lambda record: SAME, of=OF,
        trivial=1.0, assumptions=lambda record: (_is(record, "reads outputs", "encoder", "probe"),),
    )  # fmt: skip


def _terms(record: Record) -> Curve:
    return record[TERMS] if TERMS in record else 0.0  # noqa: SIM401


def plain_exactness() -> Guarantee:
    """3.3: `NetBatch.to_sequential` computes what the gated batch computes, up to rounding of its terms."""
    return Guarantee(
        name="3.3: plain networks compute the same",
        statement="max_x |plain(x) - gated(x)| / max(1, |gated(x)|) <= 1e-5",
        latex=r"\max_x |f(x) - \tilde f(x)| / \max(1, |f(x)|) \le 10^{-5}",
        source=f"a neuron whose gate is 0 adds nothing; {DERIVED}",
        quantity=DEVIATION, sense="upper", holds_in="every run", bound=lambda record: EXACT, of=OF,
        # An output of size 1 that is the difference of terms of size 300 rounds like these.
        size=_terms,
        assumptions=lambda record: (_is(record, "hard networks", "gates", ZERO_ONE),),
    )  # fmt: skip
