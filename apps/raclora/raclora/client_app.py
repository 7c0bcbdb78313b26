"""The ClientApp: trains one factor a round on a sketch that it draws from the seed."""

from surefoot.lora.doors.flower import rac_client_app
from surefoot.lora.doors.flower_digits import digits_problem

app = rac_client_app(digits_problem)
