"""A run of Trackio: quantities as metrics, facts as its configuration, certificates as an artifact."""

from __future__ import annotations

import json
import math
import re
import tempfile
from pathlib import Path

from surefoot._sinks.sending import Sent
from surefoot.errors import need

with need("trackio", extra="sinks", part="tracker 'trackio'"):
    import trackio


def write(sent: Sent, place: str | None) -> None:
    """Write one run; a run of trackio's that is open in this process is finished by it.

    Parameters
    ----------
    sent
        What it is given.
    place
        The URL of a server; None: the store of this machine, in TRACKIO_DIR.
    """
    run = trackio.init(
        project=sent.project, name=sent.run, server_url=place, config=dict(sent.facts), embed=False,
        auto_log_gpu=False, auto_log_cpu=False,
    )  # fmt: skip
    for step, row in sent.rows:
        run.log({k: v for k, v in row.items() if not math.isnan(v)}, step=step)
    with tempfile.TemporaryDirectory() as folder:
        artifact = trackio.Artifact(
            re.sub(r"\W+", "-", f"certificates {sent.run}"), type="certificates"
        )
        for name, text in (
            ("certificates.json", sent.certificates),
            ("certificates.txt", sent.summary),
            ("names.json", json.dumps(dict(sent.names), indent=1)),
        ):
            partial = Path(folder) / name
            partial.write_text(text, encoding="utf-8")
            artifact.add_file(str(partial))
        run.log_artifact(artifact)
        # And not the method of the run alone, which it would repeat when the process ends.
        trackio.finish()
