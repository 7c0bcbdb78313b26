"""The guarantees of the package. A new method joins by one line, and a file of data in `promises/`."""

from tests.contract.promises import (
    barycenter,
    federated,
    in_context,
    kan,
    lora,
    nesterov,
    privacy,
    reparam,
    zeroth_order,
)

PROMISES = [
    *barycenter.PROMISES,
    *federated.PROMISES,
    *in_context.PROMISES,
    *kan.PROMISES,
    *lora.PROMISES,
    *nesterov.PROMISES,
    *privacy.PROMISES,
    *reparam.PROMISES,
    *zeroth_order.PROMISES,
]
