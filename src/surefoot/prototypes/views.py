"""Two real sets of several domains: ways of writing about a noun, and rated sentences of four kinds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from surefoot import data
from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_number
from surefoot._numerics.seeds import seed_for
from surefoot.data.wordnet import WordNet
from surefoot.prototypes.texts import TEMPLATES, DomainTexts, prompts_of

PHRASES = {
    "animal": "an animal", "artifact": "a man-made object", "body": "a part of the body",
    "cognition": "a thought or an idea", "communication": "language and communication",
    "feeling": "a feeling or an emotion", "food": "food and drink", "location": "a place",
    "person": "a person", "plant": "a plant", "state": "a state or condition",
    "substance": "a substance or material", "time": "a period of time", "event": "an event",
    "quantity": "a quantity or unit of measure",
}  # fmt: skip
"""Lexicographer file of WordNet, and how a sentence calls what is in it."""
VIEWS = ("example", "kinds", "term", "definition")
"""In the order in which a synset is given to the first that it can serve and that has room."""
SENTIMENTS = {
    "negative": ("a negative opinion", "something bad"),
    "neutral": ("a neutral statement", "something ordinary"),
    "positive": ("a positive opinion", "something good"),
}
NEUTRAL = 0.5
"""Ratings of at most this size are neutral."""


@checked
def wordnet_views(per_cell: int = 60, seed: int = 0, path: str | Path | None = None) -> DomainTexts:
    """15 kinds of nouns, written about in four ways; no synset appears in two of them.

    Domains: "definition" (the gloss without its quotations), "example" (its first quotation, of at least 15
    characters), "kinds" (the names of 3 to 6 hyponyms), "term" (two or more synonyms). Cells that WordNet
    cannot fill stay short: 3,524 texts by default.

    Parameters
    ----------
    per_cell
        Texts a class and domain, at most.
    seed
        Of the order of the synsets.
    path
        A data.noun of one's own, or its folder.
    """
    per_cell = check_number("per_cell", per_cell, least=1, whole=True)
    wordnet = data.load("wordnet", path)
    nouns = wordnet.nouns[wordnet.nouns["category"].isin(PHRASES)]
    order = np.random.default_rng(seed_for("wordnet views", seed)).permutation(len(nouns))
    writers = _writers(wordnet)
    cells: dict[tuple[str, str], list[str]] = {(v, c): [] for c in PHRASES for v in VIEWS}
    columns = [
        nouns[name].to_numpy()[order] for name in ("category", "lemmas", "hyponyms", "gloss")
    ]
    for category, lemmas, hyponyms, gloss in zip(*columns, strict=True):
        for view in VIEWS:
            cell = cells[view, category]
            text = writers[view](lemmas, hyponyms, gloss) if len(cell) < per_cell else ""
            if text:
                cell.append(text)
                break
    return _assembled(cells, tuple(PHRASES), VIEWS, prompts_of(tuple(PHRASES.values()), TEMPLATES))


Writer = Callable[[tuple[str, ...], tuple[int, ...], str], str]


def _writers(wordnet: WordNet) -> dict[str, Writer]:
    """Text of a synset in each view, "" where it has none."""
    first = dict(zip(wordnet.nouns["offset"], (w[0] for w in wordnet.nouns["lemmas"]), strict=True))

    def example(lemmas: tuple[str, ...], hyponyms: tuple[int, ...], gloss: str) -> str:
        quoted = re.search(r'"([^"]+)"', gloss)
        return quoted[1].strip() if quoted and len(quoted[1].strip()) >= 15 else ""

    def kinds(lemmas: tuple[str, ...], hyponyms: tuple[int, ...], gloss: str) -> str:
        return ", ".join(first[h] for h in hyponyms[:6]) if len(hyponyms) >= 3 else ""

    def term(lemmas: tuple[str, ...], hyponyms: tuple[int, ...], gloss: str) -> str:
        return ", ".join(lemmas) if len(lemmas) >= 2 else ""

    def definition(lemmas: tuple[str, ...], hyponyms: tuple[int, ...], gloss: str) -> str:
        return re.sub(r'"[^"]*"', "", gloss).strip(" ;:")

    return {"example": example, "kinds": kinds, "term": term, "definition": definition}


@checked
def sentiment_domains(
    per_cell: int = 500, seed: int = 0, path: str | Path | None = None
) -> DomainTexts:
    """Negative, neutral and positive tweets, editorials, film reviews and product reviews.

    Parameters
    ----------
    per_cell
        Texts a class and domain, at most; 500 of each are there.
    seed
        Of their choice.
    path
        Rated texts of one's own, as for `surefoot.data.load("sentiment4")`.
    """
    per_cell = check_number("per_cell", per_cell, least=1, whole=True)
    table = data.load("sentiment4", path)
    rating = table["rating"].to_numpy()
    kind = np.where(
        rating < -NEUTRAL, "negative", np.where(rating > NEUTRAL, "positive", "neutral")
    )
    names = tuple(dict.fromkeys(table["domain"]))
    rng = np.random.default_rng(seed_for("sentiment domains", seed))
    cells = {}
    for domain in names:
        for label in SENTIMENTS:
            rows = np.flatnonzero((table["domain"].to_numpy() == domain) & (kind == label))
            chosen = rng.permutation(rows)[:per_cell]
            cells[domain, label] = [str(t) for t in table["text"].to_numpy()[chosen]]
    prompts = tuple(
        tuple(text for phrase in phrases for text in prompts_of((phrase,), TEMPLATES)[0])
        for phrases in SENTIMENTS.values()
    )
    return _assembled(cells, tuple(SENTIMENTS), names, prompts)


def _assembled(
    cells: dict[tuple[str, str], list[str]],
    classes: tuple[str, ...],
    domains: tuple[str, ...],
    prompts: tuple[tuple[str, ...], ...],
) -> DomainTexts:
    rows = [
        (text, classes.index(label), domains.index(domain))
        for (domain, label), texts in cells.items()
        for text in texts
    ]
    texts, y, at = zip(*rows, strict=True)
    return DomainTexts(texts, np.array(y), np.array(at), classes, domains, prompts)
