"""Closed forms of transport between Gaussians, by eigenvectors or by matrix products."""
