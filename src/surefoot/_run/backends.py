"""Where seeds run: joblib's processes and threads here, Ray and Dask also on other machines."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from surefoot._run.environment import check_ray, version_of
from surefoot._run.folder import RunFolder
from surefoot._run.seed import SeedResult, run_seed, worker_of
from surefoot.errors import MissingExtraError, SurefootError, UnknownNameError
from surefoot.study import Study, StudyConfig

BACKENDS = ("loky", "threading", "ray", "dask")
CLUSTERS = {"ray": "ray", "dask": "distributed"}
"""Backend -> the package that it needs."""
TRIES = 3
"""How often a seed whose worker died is begun."""
PATIENCE = 10.0
"""Seconds for a cluster to answer."""
Key = tuple[str, int]


@dataclass(frozen=True)
class Work:
    """The seeds that are to run, and what each process must know of them."""

    study: Study | str
    config: StudyConfig
    folder: RunFolder
    owner: int
    todo: Sequence[Key]

    def arguments(self, part: str, seed: int) -> tuple[Any, ...]:
        """What `run_seed` takes."""
        return self.study, self.config, part, seed, self.folder, self.owner

    @property
    def calls(self) -> Mapping[Key, tuple[Any, ...]]:
        """Those of all seeds."""
        return {(part, seed): self.arguments(part, seed) for part, seed in self.todo}

    def worker(self, part: str, seed: int) -> str | None:
        """The worker that began a seed and did not live to end it."""
        return worker_of(self.folder.seed_folder(part, seed))

    def say_died(self, part: str, seed: int, why: str, worker: str | None = None) -> None:
        """Name a worker that died, and the seed that is run again for it."""
        who = worker or self.worker(part, seed) or "a worker"
        print(f"{who} died ({why}): seed {seed} of part {part} is run again", file=sys.stderr)

    def ended(self, result: SeedResult) -> SeedResult:
        """The result, or that its files are not where this process looks for them."""
        if result.error is None and not self.folder.is_done(result.part, result.seed):
            why = (
                f"its files are not in {self.folder.path}: workers need a file system that they share "
                "with this process"
            )
            return SeedResult(result.part, result.seed, result.seconds, why)
        return result


def check_backend(name: str) -> None:
    """Refuse a backend that is not there before anything is written.

    Raises
    ------
    UnknownNameError
        There is none of that name.
    MissingExtraError
        Its package is not installed.
    SurefootError
        It cannot start workers here.
    """
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS)
    if name in CLUSTERS and version_of(CLUSTERS[name]) is None:
        raise MissingExtraError(f"backend {name!r}", CLUSTERS[name], "cluster")
    if name == "ray":
        check_ray()


def check_address(address: str | None) -> None:
    """Refuse an address at which nobody answers, which Ray would ask for ever.

    Raises
    ------
    SurefootError
        Nobody does within some seconds.
    """
    found = re.fullmatch(r"(?:\w+://)?\[?([^/\]]+)\]?:(\d+)", address or "")
    if found is None:
        # Ray's "auto", a file of a scheduler: what only they can tell.
        return
    try:
        socket.create_connection((found[1], int(found[2])), timeout=PATIENCE).close()
    except (OSError, OverflowError) as error:
        raise SurefootError(f"no cluster answers at {address}: {error}") from error


def results(backend: str, work: Work, jobs: int, address: str | None) -> Iterator[SeedResult]:
    """The results of all seeds as they end; where a worker dies its seed is begun again, up to `TRIES` times.

    Parameters
    ----------
    backend
        One of `BACKENDS`.
    work
        The seeds.
    jobs
        How many run at once; -1: one a core, on a cluster as many as it has places for.
    address
        Of a cluster; None: one is started here, and ended.
    """
    if backend == "ray":
        from surefoot._run.doors.ray import on_ray

        yield from map(work.ended, on_ray(work.calls, jobs, address, work.say_died, TRIES))
    elif backend == "dask":
        from surefoot._run.doors.dask import on_dask

        yield from map(work.ended, on_dask(work.calls, jobs, address, work.say_died))
    else:
        yield from _here(backend, work, jobs)


def _here(backend: str, work: Work, jobs: int) -> Iterator[SeedResult]:
    """Joblib's processes or threads."""
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    # One thread a process.
    limits = {"inner_max_num_threads": 1} if backend == "loky" else {}
    left = dict(work.calls)
    for again in range(TRIES):
        calls = [joblib.delayed(run_seed)(*arguments) for arguments in left.values()]
        try:
            with joblib.parallel_config(backend=backend, **limits):
                for result in joblib.Parallel(
                    n_jobs=jobs, return_as="generator_unordered", batch_size=1
                )(calls):
                    del left[result.part, result.seed]
                    yield result
            return
        except TerminatedWorkerError as error:
            # All workers end with the one that died; which of them that was is not told.
            if again == TRIES - 1:
                yield from _given_up(left, str(error))
                return
            said = str(error).splitlines()
            why = next((line.strip() for line in said if "exit codes" in line), said[0])
            for part, seed in left:
                if (worker := work.worker(part, seed)) is not None:
                    work.say_died(part, seed, why, worker)


def _given_up(left: Mapping[Key, Any], why: str) -> Iterator[SeedResult]:
    for part, seed in left:
        yield SeedResult(part, seed, 0.0, f"its worker died {TRIES} times: {why}")


def fresh_workers() -> None:
    """End the worker processes that loky keeps for the next call.

    They stand in the folder in which they were started and have read the modules as they were then: a study
    of the user's own, moved or edited since, would not be found or run as it was.
    """
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)
