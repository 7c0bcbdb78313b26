"""Which modules hooks may serve beyond those of torch and transformers."""

from __future__ import annotations

from surefoot.zeroth_order._engine.linear_like import linear_like as linear_like
