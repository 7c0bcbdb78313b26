"""Event files of TensorBoard: quantities as scalars, facts and certificates as texts."""

from __future__ import annotations

import json
from pathlib import Path

from surefoot._run.files import write_text
from surefoot._sinks.sending import Sent
from surefoot.errors import need

with need("tensorboard", extra="sinks", part="tracker 'tensorboard'"):
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


def write(sent: Sent, place: str | None) -> None:
    """Write one run.

    Parameters
    ----------
    sent
        What it is given.
    place
        The folder of all event files; None: `tensorboard`, in the current one.
    """
    folder = Path(place or FOLDER) / sent.project / sent.run
    folder.mkdir(parents=True, exist_ok=True)
    with SummaryWriter(str(folder)) as writer:
        for step, row in sent.rows:
            for name, value in row.items():
                writer.add_scalar(name, value, step)
        # Texts are Markdown there: four spaces keep lines as they are.
        for name, text in (
            ("facts", json.dumps(dict(sent.facts), indent=1)),
            ("names", json.dumps(dict(sent.names), indent=1)),
            ("certificates", sent.certificates),
            ("verdicts", sent.summary),
        ):
            writer.add_text(name, "\n".join("    " + line for line in text.splitlines()))
    # TensorBoard keeps no artifacts; the file stands beside its own.
    write_text(folder / "certificates.json", sent.certificates)
