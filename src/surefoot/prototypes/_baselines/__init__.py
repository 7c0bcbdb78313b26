"""Many adapters trained at once, and the local objectives of the baselines."""
