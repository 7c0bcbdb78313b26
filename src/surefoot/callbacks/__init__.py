"""`surefoot.watch` in the loops of others: transformers' Trainer and Lightning."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
