"""What was learned on a base that is not written, as an adapter of PEFT."""

from __future__ import annotations

from surefoot.zeroth_order.doors.adapter import attach as attach
from surefoot.zeroth_order.doors.adapter import export_adapter as export_adapter
