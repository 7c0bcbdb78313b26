"""Convex problems with known constants on real data, and the one rule by which arms are tuned."""
