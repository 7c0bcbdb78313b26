"""FedRepOpt (arXiv 2409.15898): a plain network that trains exactly like a multi-branch one."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
