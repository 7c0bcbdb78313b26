"""What a result depends on besides its configuration: versions, platform, threads."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

EXTRAS = {
    "llm": ("transformers", "peft", "accelerate", "gguf", "sentencepiece", "safetensors"),
    "federated": ("flwr",),
    "privacy": ("opacus", "dp-accounting"),
}
CORE = (
    "torch", "numpy", "scipy", "scikit-learn", "pandas", "pyarrow", "joblib", "rich", "tyro",
    "jaxtyping", "jinja2", "plotly", "latex2mathml", "filelock",
)  # fmt: skip


def version_of(package: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


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
