"""The ServerApp: averages the factors, merges, sends the merge order."""

from surefoot.federated import make_server_app
from surefoot.lora.doors.flower_digits import digits_problem, rac_strategy

app = make_server_app(digits_problem, rac_strategy)
