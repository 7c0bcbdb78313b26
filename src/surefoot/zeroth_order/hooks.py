"""What serves a weight from beside it, and which modules it may serve beyond those of torch's own."""

from __future__ import annotations

from surefoot.zeroth_order._engine.hooks import Conv1DHook as Conv1DHook
from surefoot.zeroth_order._engine.hooks import EmbeddingHook as EmbeddingHook
from surefoot.zeroth_order._engine.hooks import LinearHook as LinearHook
from surefoot.zeroth_order._engine.hooks import LowRankHook as LowRankHook
from surefoot.zeroth_order._engine.hooks import hook_for as hook_for
from surefoot.zeroth_order._engine.hooks import install as install
from surefoot.zeroth_order._engine.linear_like import linear_like as linear_like
