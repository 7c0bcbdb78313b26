"""joblib's backends: which there are, and what each needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from surefoot._run.environment import check_ray, version_of
from surefoot.errors import SurefootError, UnknownNameError

BACKENDS = ("loky", "threading", "ray", "dask")


@contextmanager
def joblib_backend(name: str, jobs: int) -> Iterator[None]:
    """Joblib's context for a backend, with one thread a process."""
    import joblib

    if name in ("ray", "dask"):
        package = {"ray": "ray", "dask": "distributed"}[name]
        if version_of(package) is None:
            raise SurefootError(
                f"backend {name!r} needs the package {package}, which is not installed; "
                f"run: pip install {package}"
            )
    if name == "dask":
        distributed = importlib.import_module("distributed")
        with distributed.Client(n_workers=jobs, threads_per_worker=1), joblib.parallel_config(name):
            yield
        return
    if name == "ray":
        check_ray()
        importlib.import_module("ray.util.joblib").register_ray()
    limits = {"inner_max_num_threads": 1} if name == "loky" else {}
    with joblib.parallel_config(backend=name, **limits):
        yield


def fresh_workers() -> None:
    """End the worker processes that loky keeps for the next call.

    They stand in the folder in which they were started and have read the modules as they were then: a study
    of the user's own, moved or edited since, would not be found or run as it was.
    """
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


def check_backend(name: str) -> None:
    """Refuse a backend that does not exist before anything is written."""
    if name not in BACKENDS:
        raise UnknownNameError("backend", name, BACKENDS)
