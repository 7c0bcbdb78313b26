"""MPFT as a Flower app."""
