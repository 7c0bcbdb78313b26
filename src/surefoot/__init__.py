"""Gradient descent with its guarantee attached.

A method is finished when it says what was promised (`Guarantee`), measures what happened (`Record`)
and puts the two side by side (`Certificate`). Importing this package imports neither torch nor
any extra: the names below are looked up when they are first used.
"""

from lazy_loader import attach_stub

from surefoot import _moved

__version__ = "0.1.0"
_moved.install()

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
