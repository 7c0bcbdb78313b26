"""The model on its file's blocks, as `surefoot.data` opens it."""

from __future__ import annotations

from surefoot.data.doors.gguf import load_gguf as load_gguf
