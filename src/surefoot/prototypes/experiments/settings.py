"""The data of the study: real texts of several domains behind a real encoder, and a toy of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from surefoot import data
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.experiments.folders import folder_setting
from surefoot.prototypes.experiments.toy import toy
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.splits import Domain, Rows, split_domains
from surefoot.prototypes.text_embedding import are_kept, embedded
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


SOURCES = {"nouns": "wordnet", "sentences": "sentiment4"}
"""Name of the source, and of what is downloaded for it."""


def setting_of(source: str, config: PrototypesConfig, seed: int) -> Setting:
    """Source "digits" (the toy), "nouns", "sentences", "own" (a table) or "folders" (of images)."""
    if source == "digits":
        made = toy(config.size, seed)
        return Setting(made.domains, made.head, "toy")
    if source == "folders":
        found = folder_setting(config.images, config.vision, config.classes, seed)
        return Setting(*found)
    table = _texts(source, config.size, config.texts)
    z, head, name = _embedded(source, config.size, config.encoder, config.texts)
    split = split_domains(z, table.labels, table.domains, table.domain_names, seed)
    return Setting(split, head, name)


def why_skipped(part: str, source: str, config: PrototypesConfig) -> str:
    """Why a part of real texts has to wait: size quick neither downloads an encoder nor asks one for long.

    "": it does not wait. Named with --part, or at another size, it never does.
    """
    if config.size != "quick" or part in config.part or source not in SOURCES:
        return ""
    here = {e.name for e in data.available() if e.present}
    missing = {SOURCES[source], *(() if config.encoder else ("minilm",))} - here
    if missing:
        return f"{' and '.join(sorted(missing))} would have to be downloaded"
    if not are_kept(_texts(source, config.size, config.texts), config.encoder):
        return "its texts are not embedded yet"
    return ""


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
