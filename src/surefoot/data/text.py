"""Sentences with a human rating, in several domains."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pandas as pd

from surefoot.data.frames import column, read_frame
from surefoot.errors import FileFormatError

DOMAINS = {
    "tweets": "tweets",
    "editorials": "nytEditorialSnippets",
    "movies": "movieReviewSnippets",
    "products": "amazonReviewSnippets",
}
TEXTS = ("text", "sentence", "content", "review")
RATINGS = ("rating", "score", "label", "stars")


def ratings(path: Path) -> pd.DataFrame:
    """Rated sentences as a data frame, one row per sentence.

    Columns: `domain` (str: tweets, editorials, movies, products), `id` (str, unique within its
    domain), `rating` (float64: the mean of some 20 raters, -4 most negative to 4 most positive)
    and `text` (str). From C. J. Hutto and E. Gilbert, VADER, ICWSM 2014.

    `path` is the archive of that paper, the folder it unpacks to, or anything that holds rows with
    a text (column text, sentence, content or review) and a number (rating, score, label or stars);
    `domain` then defaults to the name of the file or folder, `id` to the row number, and a column
    `split` is kept where there is one.
    """
    if path.name.endswith(".tar.gz") and path.is_file():
        return _archive(path)
    if path.is_dir():
        archives = sorted(path.glob("hutto_ICWSM_2014.tar.gz"))
        if archives:
            return _archive(archives[0])
        if any(path.rglob("*_GroundTruth.txt")):
            return _assemble(
                {file.name: file.read_bytes() for file in sorted(path.rglob("*_GroundTruth.txt"))},
                path,
            )
    return _own(path)


def _archive(path: Path) -> pd.DataFrame:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                name = member.name.rsplit("/", 1)[-1]
                if member.isreg() and name.endswith("_GroundTruth.txt"):
                    content = tar.extractfile(member)
                    found[name] = content.read() if content else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise FileFormatError(f"{path} is not a readable archive: {error}") from error
    return _assemble(found, path)


def _assemble(found: dict[str, bytes], path: Path) -> pd.DataFrame:
    frames = []
    for domain, stem in DOMAINS.items():
        name = f"{stem}_GroundTruth.txt"
        if name not in found:
            raise FileFormatError(f"{path} holds no {name}")
        frames.append(_parse(found[name], domain, name))
    return pd.concat(frames, ignore_index=True)


def _parse(raw: bytes, domain: str, name: str) -> pd.DataFrame:
    # UTF-8, as every byte of the four files decodes to the accents that film titles and names have;
    # read as latin-1 they fall apart in two characters each. Lines end in CR LF and nothing else:
    # str.splitlines would also break at characters inside a sentence.
    try:
        rows = [line.split("\t", 2) for line in raw.decode("utf-8").split("\n") if line.strip()]
        return pd.DataFrame(
            {
                "domain": domain,
                "id": [row[0] for row in rows],
                "rating": [float(row[1]) for row in rows],
                "text": [row[2].strip() for row in rows],
            }
        )
    except (ValueError, IndexError) as error:
        raise FileFormatError(f"{name} is not id, rating and text between tabs: {error}") from error


def _own(path: Path) -> pd.DataFrame:
    frame = read_frame(path)
    texts, numbers = column(frame, TEXTS, path), column(frame, RATINGS, path)
    if not pd.api.types.is_numeric_dtype(numbers):
        raise FileFormatError(f"{path}: column {numbers.name!r} must hold numbers")
    lower = {str(c).lower(): c for c in frame.columns}
    made = pd.DataFrame(
        {
            "domain": frame[lower["domain"]].astype(str) if "domain" in lower else path.stem,
            "id": (frame[lower["id"]] if "id" in lower else frame.index.to_series()).astype(str),
            "rating": numbers.astype("float64"),
            "text": texts.astype(str),
        }
    )
    return made.assign(split=frame[lower["split"]].astype(str)) if "split" in lower else made
