"""Images in folders domain/class/image, as DomainNet, PACS, Office-Home and Adaptiope come."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from surefoot._numerics.checks import check_number
from surefoot.errors import FileFormatError

KINDS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
TEMPLATES = ("a photo of a {}", "a drawing of a {}", "a painting of a {}", "a sketch of a {}",
             "an image of a {}")  # fmt: skip


@dataclass(frozen=True, eq=False)
class DomainImages:
    """Labelled image files of several domains.

    Attributes
    ----------
    files
        N paths, in the order of domain, class and name.
    labels
        (N,) indices into `classes`.
    domains
        (N,) indices into `domain_names`.
    classes
        Names of the folders, in alphabetical order.
    domain_names
        The same of the domains.
    """

    files: tuple[Path, ...]
    labels: Int[np.ndarray, " N"]
    domains: Int[np.ndarray, " N"]
    classes: tuple[str, ...]
    domain_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.files)

    def prompts(self) -> list[list[str]]:
        """What the zero-shot head is made of: each class in five templates."""
        return [
            [t.format(name.replace("_", " ").replace("-", " ")) for t in TEMPLATES]
            for name in self.classes
        ]


def domain_images(path: str | Path, classes: int = 0) -> DomainImages:
    """Every image below path/DOMAIN/CLASS/; a domain need not have every class.

    Parameters
    ----------
    path
        The folder. Hidden folders, and files that are no images by their ending, are passed over.
    classes
        Only the first so many classes in alphabetical order (the paper takes 50, 100 and 150 of DomainNet);
        0: all.

    Raises
    ------
    surefoot.errors.FileFormatError
        No such folder, no image in it, or fewer than two domains or classes.
    """
    most = check_number("classes", classes, least=0, whole=True)
    root = Path(path).expanduser()
    if not root.is_dir():
        raise FileFormatError(f"{root} is no folder; it must hold DOMAIN/CLASS/IMAGE")
    there = {
        domain.name: {c.name: _images(c) for c in _folders(domain)} for domain in _folders(root)
    }
    there = {
        d: kept for d, found in there.items() if (kept := {c: f for c, f in found.items() if f})
    }
    names = sorted({c for found in there.values() for c in found})
    names = names[: most or None]
    if len(there) < 2 or len(names) < 2:
        raise FileFormatError(
            f"{root} must hold DOMAIN/CLASS/IMAGE with two domains and classes at least, got domains "
            f"{sorted(there)} and classes {names}"
        )
    rows = [
        (file, names.index(c), i)
        for i, domain in enumerate(sorted(there))
        for c in sorted(there[domain])
        if c in names
        for file in there[domain][c]
    ]
    files, labels, domains = zip(*rows, strict=True)
    return DomainImages(
        files, np.array(labels), np.array(domains), tuple(names), tuple(sorted(there))
    )


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _images(path: Path) -> list[Path]:
    found = [
        Path(top) / name
        for top, _, names in os.walk(path)
        for name in names
        if name.lower().endswith(KINDS) and not name.startswith(".")
    ]
    return sorted(found)
