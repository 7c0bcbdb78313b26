"""The ServerApp: deterministic averaging, the multipliers sent once."""

from surefoot.federated import make_server_app
from surefoot.reparam.doors.flower import repopt_strategy, repopt_task

app = make_server_app(repopt_task, repopt_strategy)
