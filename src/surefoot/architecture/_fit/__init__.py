"""Tiny dense networks in float64: fitting, pruning, and what is chosen of them."""
