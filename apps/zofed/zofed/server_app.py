"""The ServerApp: adds the scalars, and noise where it is trusted with them; sends those that a site lacks."""

from surefoot.federated import make_server_app
from surefoot.zeroth_order.doors.flower import scalar_strategy
from surefoot.zeroth_order.doors.flower_digits import digits_task

app = make_server_app(digits_task, scalar_strategy)
