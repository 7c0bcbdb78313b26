"""Privacy curves: mixtures of Gaussians, their weights and their envelopes."""
