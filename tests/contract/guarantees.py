"""The guarantees of the package. A new method joins by one line, and a file of data in `promises/`."""

from tests.contract.promises import (
    architecture,
    architecture_embedding,
    barycenter,
    federated,
    in_context,
    kan,
    lora,
    nesterov,
    privacy,
    prototypes,
    reparam,
    zeroth_order,
)

PROMISES = [
    *architecture.PROMISES,
    *architecture_embedding.PROMISES,
    *barycenter.PROMISES,
    *federated.PROMISES,
    *in_context.PROMISES,
    *kan.PROMISES,
    *lora.PROMISES,
    *nesterov.PROMISES,
    *privacy.PROMISES,
    *prototypes.PROMISES,
    *reparam.PROMISES,
    *zeroth_order.PROMISES,
]
