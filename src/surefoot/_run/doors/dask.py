"""Seeds as tasks of Dask, which begins them anew where a worker dies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from surefoot._run.seed import SeedResult, run_seed
from surefoot.errors import SurefootError, need

with need("distributed", extra="cluster", part="backend 'dask'"):
    from distributed import Client, LocalCluster, as_completed

Key = tuple[str, int]


def on_dask(
    calls: Mapping[Key, tuple[Any, ...]],
    jobs: int,
    address: str | None,
    died: Callable[[str, int, str, str], None],
) -> Iterator[SeedResult]:
    """The results of `run_seed` as they end.

    Parameters
    ----------
    calls
        (part, seed) -> its arguments.
    jobs
        How many run at once; -1: as many as there are cores, or places on the cluster.
    address
        Of a scheduler; None: a cluster is started here.
    died
        Told of a seed whose worker died and that Dask begins again, why, and which worker.

    Raises
    ------
    SurefootError
        No scheduler answers there.
    """
    with _client(address, jobs) as client:
        names = {
            f"surefoot {part} seed {seed}, {os.urandom(8).hex()}": (part, seed)
            for part, seed in calls
        }

        def removed(event: tuple[Any, Mapping[str, Any]]) -> None:
            _, said = event
            if said.get("action") == "remove-worker" and not said.get("expected"):
                for name in filter(names.__contains__, said.get("processing-tasks", ())):
                    died(*names[name], "it left the cluster", f"Dask's worker {said['worker']}")

        client.subscribe_topic("all", removed)
        waiting, futures = list(names), as_completed(loop=client.loop)
        running: dict[str, Any] = {}
        places = jobs if jobs > 0 else len(names)

        def begin() -> None:
            while waiting and len(running) < places:
                name = waiting.pop(0)
                running[name] = client.submit(run_seed, *calls[names[name]], key=name, pure=False)
                futures.add(running[name])

        try:
            begin()
            for future in futures:
                del running[future.key]
                begin()
                error = future.exception()
                key = names[future.key]
                if error is None:
                    yield future.result()
                else:
                    yield SeedResult(*key, 0.0, f"{type(error).__name__}: {error}")
        finally:
            client.unsubscribe_topic("all")
            client.cancel(list(running.values()))


def _client(address: str | None, jobs: int) -> Any:
    """A client that ends, with its own cluster where no address was given, when it is left."""
    if address is not None:
        try:
            return Client(address, timeout="20s", set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise SurefootError(f"no Dask scheduler answers at {address}: {error}") from error
    workers = jobs if jobs > 0 else os.cpu_count() or 1
    return _Local(workers)


class _Local:
    """A cluster on this machine, of processes with one thread each, and its client."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def __enter__(self) -> Any:
        self._cluster = LocalCluster(
            n_workers=self._workers, threads_per_worker=1, processes=True, dashboard_address=None
        )
        self._client = Client(self._cluster, set_as_default=False)
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._cluster.close()
