"""Optuna and torch-pruning, which the study compares with where they are installed."""
