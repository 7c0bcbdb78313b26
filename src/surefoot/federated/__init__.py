"""What the federated methods share on Flower: records, partitions, apps, a deterministic strategy."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
