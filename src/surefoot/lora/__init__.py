"""Low-rank adaptation that provably gets there: RAC-LoRA chains on PEFT (arXiv 2410.08305)."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
