"""JSON that ends with its own SHA-256, alone or as the first line of a file of which it holds the SHA-256."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

LINE, BODY = "sha256", "body_sha256"


def seal_json(data: Mapping[str, Any]) -> bytes:
    """JSON for people to read, with its SHA-256 as the last key.

    Parameters
    ----------
    data : mapping
        What JSON knows; the key "sha256" is added.
    """
    # Without the newline and bracket that end it.
    start = json.dumps(dict(data), indent=1).encode()[:-2]
    return start + _end(start)


def unseal_json(content: bytes) -> dict[str, Any]:
    """What was given to `seal_json`.

    Raises
    ------
    ValueError
        It is not as it was written.
    """
    start = content[: len(content) - len(_end(b""))]
    if content != start + _end(start):
        raise ValueError("it is not what was written")
    found: dict[str, Any] = json.loads(start + b"}")
    return found


def is_sealed(content: bytes) -> bool:
    """Whether JSON claims a SHA-256: not whether it is the right one."""
    return f',"{LINE}":"'.encode() in content


def seal(head: Mapping[str, Any], body: bytes = b"") -> bytes:
    """The content of a file: one line of JSON, and the body as it is.

    Parameters
    ----------
    head : mapping
        What JSON knows; the keys "sha256" and "body_sha256" are added.
    body : bytes
        What follows the line.
    """
    whole = dict(head) | ({BODY: hashlib.sha256(body).hexdigest()} if body else {})
    start = json.dumps(whole, separators=(",", ":")).encode()[:-1]
    return start + _end(start) + body


def unseal_line(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The line that `seal` wrote, checked, and what follows it, which `check_body` is still to see.

    Raises
    ------
    ValueError
        The line is not as it was written.
    """
    line, newline, body = content.partition(b"\n")
    try:
        return unseal_json(line + newline), body
    except ValueError as error:
        raise ValueError(f"its first line: {error}") from None


def check_body(head: dict[str, Any], body: bytes) -> None:
    """Compare what follows the line with what the line says, and take that out of `head`.

    Raises
    ------
    ValueError
        It is not as it was written.
    """
    found = hashlib.sha256(body).hexdigest() if body else None
    if head.pop(BODY, None) != found:
        raise ValueError("what follows its first line is not what was written")


def _end(start: bytes) -> bytes:
    return f',"{LINE}":"{hashlib.sha256(start).hexdigest()}"}}\n'.encode()
