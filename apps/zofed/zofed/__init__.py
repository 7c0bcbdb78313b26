"""Federated scalars as a Flower app."""
