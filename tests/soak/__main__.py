"""`python -m tests.soak --minutes 30 --seed 0`: every kind of fault for its share of the time, and a table.

Exit 0: nothing was lost; 1: something was, and the table is followed by an example of each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from tests.soak import bad_calls, federation, flips, kills
from tests.soak.table import Row, Trials, run, table

# A kind, how many are wanted, its share of the time, and its trials in an empty folder with a seed.
Kinds = list[tuple[Row, float, Callable[[Path, int], Trials]]]


def kinds() -> Kinds:
    gone = "" if bad_calls.there() else "missing: tests/faults/bad_calls.py is not there"
    # The quick ones first: what they leave of their time is the kills'.
    return [
        (Row("bad calls", 1000, missing=gone), 0.08, bad_calls.bad_calls),
        (Row("clients that lie", 20), 0.02, lambda f, s: federation.liars(s)),
        (Row("flips: sealed files", 1000), 0.1, lambda f, s: flips.flips(flips.SEALED, f, s)),
        (
            Row("flips: files without a checksum", 300, "their formats have none"),
            0.05,
            lambda f, s: flips.flips(flips.UNSEALED, f, s),
        ),
        (
            Row("kills: Trainer with RacCallback", 20),
            0.1,
            lambda f, s: kills.training("rac", f, s),
        ),
        (Row("kills: ZOTrainer", 20), 0.1, lambda f, s: kills.training("zo", f, s)),
        (Row("kills: surefoot architecture pretrain", 20), 0.15, kills.pretraining),
        (Row("kills: surefoot run", 20), 0.18, kills.study),
        (Row("kills: surefoot federate simulate", 20), 0.22, kills.simulation),
    ]


def soak(chosen: Kinds, minutes: float, seed: int, say: Callable[[str], None]) -> list[Row]:
    """Run the kinds one after the other, each for its share of what time is left; `say` hears each row."""
    rows, shares = [], sum(share for row, share, _ in chosen if not row.missing)
    end = time.monotonic() + 60 * minutes
    for row, share, trials in chosen:
        if not row.missing:
            seconds = max(0.0, end - time.monotonic()) * share / shares
            shares -= share
            with tempfile.TemporaryDirectory(prefix="soak") as folder:
                run(row, trials(Path(folder), seed), seconds)
        say(row.line())
        rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="kinds whose name holds this word")
    given = parser.parse_args()
    # Damaged files of old formats say that they carry no checksum, once a trial.
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    chosen = [kind for kind in kinds() if given.only in kind[0].kind]
    rows = soak(
        chosen, given.minutes, given.seed, lambda line: print(line, file=sys.stderr, flush=True)
    )
    print(table(rows))
    for row in rows:
        for word in ("lost", "silent", "traceback"):
            if row.counts[word] and not (row.excused and word == "silent"):
                print(f"{row.kind}: {word}: {row.examples[word]}")
    return int(any(row.at_fault for row in rows))


if __name__ == "__main__":
    sys.exit(main())
