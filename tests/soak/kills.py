"""The five long jobs, killed at random moments and begun again: each ends as the undisturbed one did."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

from tests.soak.processes import ROOT, Ended, command, lasts
from tests.soak.table import Trials

from surefoot._run.folder import RunFolder
from surefoot.federated._processes import started

SUREFOOT = ("-m", "surefoot")


def study(root: Path, seed: int) -> Trials:
    """`surefoot run`: a killed run says so, and `--resume` ends in the record of the undisturbed one."""
    words = (*SUREFOOT, "run", "nesterov", "--part", "benign", "--jobs", "1")
    seconds, ended = lasts(*words, "--out", str(root / "whole"))
    if ended.code:
        yield _of(ended), f"undisturbed: {ended.said[-500:]}"
        return
    wanted = _record(*RunFolder.all(root / "whole"))
    rng = random.Random(f"{seed} study")
    number = 0
    while True:
        out, number = root / str(number), number + 1
        first = command(*words, "--out", str(out), patience=rng.uniform(0, seconds))
        folders = RunFolder.all(out)
        state = folders[0].status["state"] if folders else "none"
        if first.killed and state not in ("none", "killed", "finished"):
            yield "silent", f"a killed run calls itself {state}"
            continue
        last = first
        if state == "killed":
            last = command(*words, "--out", str(out), "--resume", str(folders[0].path))
        elif state == "none":
            last = command(*words, "--out", str(out))
        if state != "finished" and last.code:
            yield _of(last), f"killed in state {state}: {last.said[-500:]}"
            continue
        checked = command(*SUREFOOT, "verify", str(RunFolder.all(out)[0].path))
        same = _record(*RunFolder.all(out)) == wanted and not checked.code
        yield ("whole" if same else "silent"), f"killed in state {state}; {checked.out[-300:]}"


def _record(folder: RunFolder) -> str:
    """All numbers of a run, exactly."""
    import pandas as pd

    table = pd.read_parquet(folder.path / "record.parquet")
    return table.sort_values(list(table.columns)).to_json(orient="values", double_precision=15)


def training(kind: str, root: Path, seed: int, kills: int = 4) -> Trials:
    """A Trainer that goes on from its newest whole checkpoint; `kills` in one undisturbed length."""
    number = 0
    while True:
        number += 1
        ended = command(
            "-m",
            "tests.faults.trainings",
            kind,
            str(root / str(number)),
            f"{seed}{number}",
            str(kills),
        )
        if ended.code:
            yield _of(ended), ended.said[-500:]
            continue
        found = json.loads(ended.out.splitlines()[-1])
        good = not found["errors"] and found["bit-identical"] == found["ended"] > 0
        word = "whole" if good else "traceback" if found["errors"] else "silent"
        for _ in range(found["killed"]):
            yield word, ended.out[-500:]


def simulation(root: Path, seed: int) -> Trials:
    """`surefoot federate simulate`: nothing of a killed one is left, and the result of before is."""
    rng = random.Random(f"{seed} simulation")
    number = 0
    while True:
        folder, number = root / str(number), number + 1
        temporary = folder / "t"
        temporary.mkdir(parents=True)
        out = folder / "out.safetensors"
        out.write_text("of before")
        family: list[int] = []
        ended = command(
            *SUREFOOT, "federate", "simulate", str(ROOT / "apps" / "repopt"), "--rounds", "500", "--out",
            str(out), "--set", "data=digits", patience=rng.uniform(1, 60), family=family,
            TMPDIR=str(temporary),
        )  # fmt: skip
        if not ended.killed:
            yield _of(ended), f"ended by itself with exit {ended.code}: {ended.said[-4000:]}"
            continue
        deadline = time.monotonic() + 120
        while left := _left(family, temporary):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        kept = out.read_text() == "of before"
        yield ("whole" if kept and not left else "lost"), f"left: {left}, result kept: {kept}"


def _left(family: list[int], temporary: Path) -> list[str]:
    there = [f"process {pid}" for pid in family if started(pid) is not None]
    # torch keeps a cache of its own beside temporary files, for the next process of the same user.
    return there + [str(p) for p in temporary.iterdir() if not p.name.startswith("torchinductor_")]


def pretraining(root: Path, seed: int) -> Trials:
    """`surefoot architecture pretrain`: what a killed one leaves is not read, and the next ends the same."""
    words = (*SUREFOOT, "architecture", "pretrain", "--steps", "30", "--networks", "4", "--json")
    seconds, ended = lasts(*words, SUREFOOT_DATA=str(root / "whole"))
    if ended.code:
        yield _of(ended), f"undisturbed: {ended.said[-500:]}"
        return
    wanted = json.loads(ended.out)["sha256"]
    rng = random.Random(f"{seed} pretraining")
    number = 0
    while True:
        cache, number = str(root / str(number)), number + 1
        command(*words, patience=rng.uniform(0, seconds), SUREFOOT_DATA=cache)
        again = command(*words, SUREFOOT_DATA=cache)
        if again.code:
            yield _of(again), again.said[-500:]
        else:
            found = json.loads(again.out)["sha256"]
            yield ("whole" if found == wanted else "silent"), f"{found} for {wanted}"


def _of(ended: Ended) -> str:
    return "traceback" if ended.traceback else "lost"
