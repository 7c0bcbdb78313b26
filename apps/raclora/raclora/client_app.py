"""The ClientApp: trains one factor a round on a sketch that it draws from the seed."""

from surefoot.lora.federated import rac_client_app
from surefoot.lora.federated_digits import digits_problem

app = rac_client_app(digits_problem)
