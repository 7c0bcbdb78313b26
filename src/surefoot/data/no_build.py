"""A build backend that builds nothing, for `pip download` of a source archive.

pip asks the backend of a source archive for metadata even when it only downloads; setuptools would
run the archive's `setup.py` for that. Put first on the path under the name `setuptools.build_meta`,
this module answers with the PKG-INFO that the archive already holds, so nothing of it is executed.
"""

from __future__ import annotations

import sys
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

# the name under which pip looks for the backend of an archive without a pyproject.toml
__legacy__ = sys.modules[__name__]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Nothing is needed to build nothing."""
    return []


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    """Copy PKG-INFO from the unpacked archive, which is the current directory."""
    text = Path("PKG-INFO").read_text(encoding="utf-8")
    about = HeaderParser().parsestr(text)
    folder = Path(metadata_directory) / (
        f"{about['Name'].replace('-', '_')}-{about['Version']}.dist-info"
    )
    folder.mkdir()
    (folder / "METADATA").write_text(text, encoding="utf-8")
    return folder.name
