"""Gradient descent with its guarantee attached."""

__version__ = "0.1.0"
