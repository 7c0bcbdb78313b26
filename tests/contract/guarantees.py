"""The guarantees of the package. A new method joins by one line, and a file of data in `promises/`."""

from tests.contract.promises import federated, privacy, reparam

PROMISES = [
    *federated.PROMISES,
    *privacy.PROMISES,
    *reparam.PROMISES,
]
