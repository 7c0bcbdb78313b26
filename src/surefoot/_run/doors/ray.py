"""Seeds as tasks of Ray, which joblib's own backend would hand back only when all have ended."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from surefoot._run.seed import SeedResult, run_seed
from surefoot.errors import SurefootError, need

with need("ray", extra="cluster", part="backend 'ray'"):
    import ray
    from ray.exceptions import RayError, RayTaskError

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
Key = tuple[str, int]


def on_ray(
    calls: Mapping[Key, tuple[Any, ...]],
    jobs: int,
    address: str | None,
    died: Callable[[str, int, str], None],
    tries: int,
) -> Iterator[SeedResult]:
    """The results of `run_seed` as they end.

    Parameters
    ----------
    calls
        (part, seed) -> its arguments.
    jobs
        How many run at once; -1: as many as there are cores.
    address
        Of a cluster; None: one is started here.
    died
        Told of a seed whose worker died and that is begun again, and why.
    tries
        How often a seed is begun before it is given up.

    Raises
    ------
    SurefootError
        No cluster answers there.
    """
    # A death is ours to name, so Ray must not begin anew by itself.
    task = ray.remote(num_cpus=1, max_retries=0)(run_seed)
    waiting, begun, running = list(calls), dict.fromkeys(calls, 0), dict[Any, Key]()
    with _connected(address, jobs):
        places = jobs if jobs > 0 else len(calls)
        try:
            while waiting or running:
                while waiting and len(running) < places:
                    key = waiting.pop(0)
                    begun[key] += 1
                    running[task.remote(*calls[key])] = key
                ended, _ = ray.wait(list(running), num_returns=1)
                for reference in ended:
                    key = running.pop(reference)
                    try:
                        yield ray.get(reference)
                    except RayError as error:
                        why = str(error).strip().splitlines()[0]
                        # What the task raised will be raised again: a module that the worker lacks.
                        if isinstance(error, RayTaskError) or begun[key] >= tries:
                            yield SeedResult(*key, 0.0, f"{type(error).__name__}: {why}")
                        else:
                            died(*key, why)
                            waiting.append(key)
        finally:
            for reference in running:
                ray.cancel(reference, force=True)


@contextmanager
def _connected(address: str | None, jobs: int) -> Iterator[None]:
    """A cluster that is there already, the one at the address, or one that lives as long as this."""
    if ray.is_initialized():
        yield
        return
    # What Ray is going to do, and warns of until it does: leave the accelerators of a task alone.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    environment = {"env_vars": dict.fromkeys(THREADS, "1")}
    local: dict[str, Any] = {"include_dashboard": False}
    if jobs > 0:
        local["num_cpus"] = jobs
    where = local if address is None else {"address": address}
    try:
        ray.init(
            **where, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR,
            configure_logging=False,
        )  # fmt: skip
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise SurefootError(
            f"no Ray cluster answers at {address or 'this machine'}: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
