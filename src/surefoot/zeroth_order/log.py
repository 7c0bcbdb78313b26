"""The whole training in a few kilobytes: seeds are in the header, one float32 a step is in the body."""

from __future__ import annotations

import builtins
import hashlib
import json
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import torch

from surefoot._numerics.arguments import checked
from surefoot._sealed.lines import check_body, seal, unseal_line
from surefoot._sealed.writing import write_bytes
from surefoot.errors import FileFormatError, warn
from surefoot.zeroth_order._engine.digest import digest_of
from surefoot.zeroth_order._engine.log_header import STREAM, check_header
from surefoot.zeroth_order._engine.tensors import Storage, TrainedTensor

FORMAT = 2
# The first format had no checksums.
UNSEALED = 1
WRITE_EVERY = 100


@checked
class StepLog:
    """Header and scalars of a run; `save` and `load`, `bytes` and `digest`.

    The scalar c of each step is rounded to float32 before it is used, so that the file holds what was
    used. NaN is a skipped step. Learning rates are rounded likewise and run-length coded, or one a step
    where a schedule changes them at every step. Header and body carry their SHA-256, and after a `flush`
    the header that of the weights.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = None if path is None else Path(path)
        self.header: dict[str, Any] = {}
        self.c = array("f")
        self._lrs: list[tuple[int, list[float]]] = []
        self._how: list[tuple[int, int, bool, int]] = []
        self._groups: list[tuple[int, list[list[float]]]] = []
        self._folds: list[int] = []
        self._tensors: list[TrainedTensor] | None = None
        self._read_storage: list[Storage] = []

    @property
    def name(self) -> str:
        """What errors call it: its file, where it has one."""
        return "the log" if self.path is None else str(self.path)

    @classmethod
    def open(cls, given: StepLog | str | Path | bool | None) -> StepLog | None:
        """A log as the optimisers take it: one, a path, True, or none."""
        if given is None or given is False:
            return None
        if isinstance(given, StepLog):
            return given
        return cls(None if given is True else given)

    # -- writing ------------------------------------------------------------------------------------------

    def begin(
        self,
        method: str,
        settings: dict[str, Any],
        groups: list[dict[str, Any]],
        tensors: list[TrainedTensor],
    ) -> None:
        """Write down what the scalars alone do not say; once.

        Parameters
        ----------
        method, settings
            Of the optimizer, as a replay builds it again.
        groups, tensors
            Its parameter groups and trained tensors, which hold the weights that the run starts from.
        """
        if self.header:
            return
        self.header = {
            "format": FORMAT,
            "method": method,
            "settings": settings,
            "groups": [
                {k: g[k] for k in ("rank", "eps", "weight_decay")} | {"count": len(g["params"])}
                for g in groups
            ],
            "tensors": [
                [x.name, list(x.param.shape), str(x.param.dtype).removeprefix("torch.")]
                for x in tensors
            ],
            "base": digest_of(tensors).hex(),
            **computed_by(tensors),
        }
        self._tensors = tensors

    def add(
        self,
        scalars: np.ndarray,
        lrs: list[float],
        how: tuple[int, bool, int],
        groups: list[list[float]],
    ) -> None:
        """One step.

        Parameters
        ----------
        scalars, lrs
            c of each direction, and the rate of each group, as they were used.
        how
            Micro-batches, whether restoring and updating were one pass, and calls of `fd_error` before it.
        groups
            [rank, weight decay] of each group.
        """
        self.c.extend(scalars.tolist())
        if self._lrs and self._lrs[-1][1] == lrs:
            self._lrs[-1] = (self._lrs[-1][0] + 1, lrs)
        else:
            self._lrs.append((1, lrs))
        if self._how and self._how[-1][1:] == how:
            self._how[-1] = (self._how[-1][0] + 1, *how)
        else:
            self._how.append((1, *how))
        if not self._groups or self._groups[-1][1] != groups:
            self._groups.append((len(self) - 1, groups))

    def write_now_and_then(self) -> None:
        """Save after every hundredth step; the step is in the log and in the weights by then."""
        if self.path is not None and len(self) % WRITE_EVERY == 0:
            self.write()

    def end(self, tensors: list[TrainedTensor]) -> None:
        """Note which weights these steps led to: those of the parameters now."""
        if self.header:
            self.header["end"] = [len(self), digest_of(tensors).hex()]

    def folded(self, t: int) -> None:
        """Weights were folded after t steps, off the end of a period."""
        self._folds.append(t)

    def __len__(self) -> int:
        per_step = self.header.get("settings", {}).get("num_directions", 1)
        return len(self.c) // int(per_step)

    # -- reading ------------------------------------------------------------------------------------------

    def steps(self) -> list[tuple[np.ndarray, list[float], tuple[int, bool, int], int]]:
        """Per step: scalars, learning rates, how it was evaluated, folds after it."""
        q = int(self.header["settings"]["num_directions"])
        c = np.array(self.c, dtype=np.float32).reshape(-1, q)
        lrs = [each for count, each in self._lrs for _ in range(count)]
        how = [(a, b, c) for count, a, b, c in self._how for _ in range(count)]
        return [(c[t], lrs[t], how[t], self._folds.count(t + 1)) for t in range(len(self))]

    def groups_at(self, t: int) -> list[list[float]] | None:
        """[rank, weight decay] of each group where they changed at step t."""
        return next((g for at, g in self._groups if at == t), None)

    # -- files --------------------------------------------------------------------------------------------

    def to_bytes(self) -> builtins.bytes:
        """The file's content."""
        groups = len(self.header["groups"])
        runs = len(self._lrs)
        streamed = runs * groups * 12 > len(self) * groups * 4 + 64
        head = self.header | {
            "format": FORMAT,
            "steps": len(self),
            "folds": self._folds,
            "how": self._how,
            "changes": self._groups,
            "storage": self.storage,
            "lr": STREAM if streamed else self._lrs,
        }
        body = np.array(self.c, dtype="<f4").tobytes()
        if streamed:
            each = [lr for count, lrs in self._lrs for _ in range(count) for lr in lrs]
            body += np.array(each, dtype="<f4").tobytes()
        return seal(head, body)

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return len(self.to_bytes())

    def save(self, path: str | Path) -> Path:
        """Write the file, whole or not at all.

        Raises
        ------
        surefoot.errors.WriteError
            A full disk, a quota, a folder that may not be written to.
        """
        write_bytes(path, self.to_bytes())
        return Path(path)

    def write(self) -> None:
        """Save to the log's own path, if it has one."""
        if self.path is not None:
            self.save(self.path)

    @classmethod
    def load(cls, path: str | Path) -> StepLog:
        """Read a file.

        Raises
        ------
        FileFormatError
            If it is no such log, of a newer format, truncated (the message says at which step), or not
            bit by bit what was written.

        Warns
        -----
        UserWarning
            The log is of the first format, which carries no checksum.
        """
        path = Path(path)
        if not path.is_file():
            raise FileFormatError(f"{path} is no file; give a log that an optimiser has written")
        log = cls(path)
        if log._read(path.read_bytes(), str(path)) == UNSEALED:
            warn(
                f"{path} is of format {UNSEALED}, which carries no checksum: a changed number in it cannot "
                "be noticed",
                UserWarning,
            )
        return log

    def _read(self, content: builtins.bytes, name: str) -> int:
        """Take a file's content; returns its format."""
        try:
            claimed = json.loads(content.partition(b"\n")[0])["format"]
            if type(claimed) is not int or claimed < UNSEALED:
                raise ValueError("it names no format")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileFormatError(f"{name} is no log of a zeroth-order run") from error
        if claimed > FORMAT:
            raise FileFormatError(f"{name} has format {claimed}, newer than {FORMAT}")
        try:
            if claimed == UNSEALED:
                line, _, body = content.partition(b"\n")
                header: dict[str, Any] = json.loads(line)
            else:
                header, body = unseal_line(content)
            check_header(header)
        except ValueError as error:
            raise FileFormatError(f"{name} is damaged: {error}") from error
        self._take(header, body, name)
        return claimed

    def _take(self, header: dict[str, Any], body: builtins.bytes, name: str) -> None:
        steps, groups = header.pop("steps"), len(header["groups"])
        q, streamed = header["settings"]["num_directions"], header["lr"] == STREAM
        expected = 4 * steps * (q + groups * streamed)
        if len(body) < expected:
            raise FileFormatError(
                f"{name} is truncated: it should hold {steps} steps in {expected} bytes and ends in step "
                f"{len(body) // (4 * q)} after {len(body)}"
            )
        if len(body) > expected:
            raise FileFormatError(
                f"{name} is damaged: it should hold {steps} steps in {expected} bytes and holds {len(body)}"
            )
        if header["format"] > UNSEALED:
            try:
                check_body(header, body)
            except ValueError as error:
                raise FileFormatError(f"{name} is damaged: {error}") from error
        values = np.frombuffer(body, dtype="<f4")
        self.c = array("f", values[: steps * q].tolist())
        lrs = header.pop("lr")
        if streamed:
            each = values[steps * q :].reshape(steps, groups).tolist()
            self._lrs = [(1, row) for row in each]
        else:
            self._lrs = [(count, row) for count, row in lrs]
        self._folds = header.pop("folds")
        self._how = [tuple(each) for each in header.pop("how")]
        self._groups = [(at, each) for at, each in header.pop("changes")]
        self._read_storage = header.pop("storage")
        self.header = header

    @property
    def storage(self) -> list[Storage]:
        """How each tensor was kept: as the optimizer that writes has it, or as the file says."""
        return self._read_storage if self._tensors is None else [x.storage for x in self._tensors]

    def resume(self, content: builtins.bytes, tensors: list[TrainedTensor]) -> None:
        """Go on where a checkpoint's log ends: what came after it never happened.

        Raises
        ------
        ValueError
            If that log is of other tensors than these.
        """
        self._read(content, "the log of the state")
        self._tensors = tensors
        if [name for name, _, _ in self.header["tensors"]] != [x.name for x in tensors]:
            raise ValueError("state's log is of other tensors than this optimiser's")


def computed_by(tensors: list[TrainedTensor]) -> dict[str, str]:
    """What a replay needs to be exact: torch up to its minor version, and the kind of device."""
    device = tensors[0].device.type if tensors else "cpu"
    return {"torch": ".".join(torch.__version__.split(".")[:2]), "device": device}
