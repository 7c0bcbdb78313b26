"""The ClientApp: forward passes at a public direction, and their scalars back."""

from surefoot.zeroth_order.doors.flower import scalar_client_app
from surefoot.zeroth_order.doors.flower_digits import digits_scalars

app = scalar_client_app(digits_scalars)
