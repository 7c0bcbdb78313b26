"""Images of one's own, DomainNet or PACS, behind an image encoder from a local file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from surefoot.data.store import sha256_of
from surefoot.prototypes.head import ZeroShotHead
from surefoot.prototypes.image_folders import DomainImages, domain_images
from surefoot.prototypes.splits import Domain, split_domains
from surefoot.prototypes.text_embedding import kept_or_made

SCALE = 100.0
"""CLIP's."""


def folder_setting(
    images: Path | None, vision: str, classes: int, seed: int
) -> tuple[list[Domain], ZeroShotHead, str]:
    """Domains, head and the encoder's hash.

    Without a text encoder (timm) the head's rows are the clients' class means, averaged: as a server can
    make it from uploads of means.
    """
    if images is None or not vision:
        raise ValueError("part folders needs --images with a folder and --vision with an encoder")
    table, z, rows, name = _embedded(images, vision, classes)
    split = split_domains(z, table.labels, table.domains, table.domain_names, seed)
    if rows is None:
        rows = torch.stack([_class_mean(split, c) for c in range(len(table.classes))])
    return split, ZeroShotHead(rows, SCALE), name


def _class_mean(split: list[Domain], label: int) -> Tensor:
    means = [z[y == label].mean(0) for z, y in (d.train for d in split) if bool((y == label).any())]
    return torch.stack(means).mean(0)


@lru_cache(maxsize=1)
def _embedded(
    images: Path, vision: str, classes: int
) -> tuple[DomainImages, Tensor, Tensor | None, str]:
    from surefoot.prototypes.doors.vision import parsed, vision_encoder

    table = domain_images(images, classes)
    library, architecture, weights = parsed(vision)
    name = f"{library} {architecture} {sha256_of(weights)[:16]}"
    encoder, prompts = vision_encoder(vision)
    seen = [f"{f.relative_to(images.expanduser())} {f.stat().st_size}" for f in table.files]
    z = kept_or_made(seen, name, encoder, list(table.files), 64)
    if prompts is None:
        return table, z, None, name
    rows = torch.stack([prompts(each) for each in table.prompts()])
    return table, z, rows.float(), name
