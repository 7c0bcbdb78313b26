"""One-round federated domain adaptation by multi-domain prototypes (MPFT, arXiv 2410.07738).

Every client uploads prototypes of the embeddings that a frozen encoder gives its records; the server trains
one small adapter on all of them. Beyond the paper: exact differential privacy of the upload, and what it
leaks.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
