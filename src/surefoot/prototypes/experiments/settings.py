"""The data of the study: real texts of several domains behind a real encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.splits import Domain, Rows, split_domains
from surefoot.prototypes.text_embedding import embedded
from surefoot.prototypes.texts import DomainTexts, domain_texts
from surefoot.prototypes.views import sentiment_domains, wordnet_views

SCALE = 30.0
"""Of the head: the cosines of MiniLM are flatter than CLIP's, whose scale is 100."""
PER_CELL = {
    "nouns": {"quick": 15, "standard": 60, "paper": 60},
    "sentences": {"quick": 40, "standard": 500, "paper": 500},
}
"""Texts a class and domain. The quick size embeds few texts, so that it is quick in a new place too."""


@dataclass(frozen=True, eq=False)
class Setting:
    """Domains, head and encoder of one seed."""

    domains: list[Domain]
    head: ZeroShotHead
    encoder: str

    @property
    def train(self) -> list[Rows]:
        """What each client has."""
        return [d.train for d in self.domains]

    @property
    def val(self) -> list[Rows]:
        """What choices are made by."""
        return [d.val for d in self.domains]

    @property
    def test(self) -> list[Rows]:
        """What is reported."""
        return [d.test for d in self.domains]


def setting_of(
    source: str, size: str, seed: int, encoder: Path | None = None, texts: Path | None = None
) -> Setting:
    """Source "nouns", "sentences", or "own": a table of one's own with text, label and domain."""
    table = _texts(source, size, texts)
    z, head, name = _embedded(source, size, encoder, texts)
    split = split_domains(z, table.labels, table.domains, table.domain_names, seed)
    return Setting(split, head, name)


@lru_cache(maxsize=3)
def _texts(source: str, size: str, texts: Path | None) -> DomainTexts:
    if source == "own":
        if texts is None:
            raise ValueError("part own needs --texts with a table of text, label and domain")
        return domain_texts(texts)
    make: Callable[[int], DomainTexts] = wordnet_views if source == "nouns" else sentiment_domains
    return make(PER_CELL[source][size])


@lru_cache(maxsize=3)
def _embedded(
    source: str, size: str, encoder: Path | None, texts: Path | None
) -> tuple[Tensor, ZeroShotHead, str]:
    return embedded(_texts(source, size, texts), SCALE, encoder)
