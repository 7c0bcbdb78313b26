"""Promises of the embedding of surefoot.architecture."""

from tests.contract.promise import Promise

from surefoot.architecture._guarantee import embedding

DRAWN = {
    "held out.networks": "iid, not trained on", "held out.decoding": "hard", "held out.frozen": True,
    "held out.n": 100, "held out.confidence": 0.95,
}  # fmt: skip
# (100, 0.9, 0.95) -> k = 96 and (100, 0.5, 0.95) -> 59; of 20 networks no rank bounds the 0.9-quantile.
DRAWN_SPOILS = [
    {"held out.networks": "trained on"}, {"held out.decoding": "soft"}, {"held out.frozen": False},
]  # fmt: skip


def of_quantile(q, kept, broken, few):
    column = f"share above the {q:g} bound"
    return Promise(
        embedding.embedding_quality, lambda: embedding.embedding_quality(q), {column: [kept]},
        {column: [broken]}, DRAWN, [*DRAWN_SPOILS, {"held out.n": few}], seeds=90, spread=0.2,
    )  # fmt: skip


PROMISES = [
    of_quantile(0.5, 0.3, 0.8, 4),
    of_quantile(0.9, 0.005, 0.5, 20),
    Promise(
        embedding.function_identity, embedding.function_identity, {"identity ratio": [1e-8]},
        {"identity ratio": [0.9]}, {"held out.encoder": "probe"}, [{"held out.encoder": "matrix"}],
    ),
    Promise(
        embedding.plain_exactness, embedding.plain_exactness,
        {"deviation of plain networks": [3e-6], "terms of their outputs": [2.0]},
        {"deviation of plain networks": [1e-3]},
        {"held out.gates": "0 or 1, one activation a neuron"}, [{"held out.gates": "between 0 and 1"}],
        others={"held out.dtype": "float32"},
    ),
]  # fmt: skip
