"""What a result depends on besides its configuration: versions, platform, threads."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

from surefoot.errors import SurefootError

EXTRAS = {
    "llm": ("transformers", "peft", "accelerate", "gguf", "sentencepiece", "safetensors"),
    "federated": ("flwr",),
    "privacy": ("opacus", "dp-accounting"),
    "cluster": ("ray", "distributed"),
    "sinks": ("mlflow-skinny", "tensorboard", "trackio"),
    "bench": ("POT", "pyriemann"),
}
CORE = (
    "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "joblib", "rich", "tyro",
    "jaxtyping", "jinja2", "lazy-loader", "plotly", "latex2mathml", "filelock",
)  # fmt: skip


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def missing_packages(extra: str) -> tuple[str, ...]:
    """The packages of an extra that are not installed."""
    return tuple(p for p in EXTRAS[extra] if version_of(p) is None)


def environment() -> dict[str, Any]:
    """Versions, platform and threads as a plain dictionary, without importing anything heavy."""
    from surefoot import __version__

    return {
        "surefoot": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "not limited"),
        "packages": {name: version_of(name) for name in CORE},
        "extras": {e: {p: version_of(p) for p in packages} for e, packages in EXTRAS.items()},
    }


def check_ray() -> None:
    """Refuse Ray where it would wait for ever: it starts workers by a shell line that quotes nothing.

    Raises
    ------
    SurefootError
        The interpreter's path holds a space.
    """
    if " " in sys.executable:
        raise SurefootError(
            f"Ray cannot start workers from an interpreter whose path holds a space, got {sys.executable}; "
            "make the environment in another folder"
        )
