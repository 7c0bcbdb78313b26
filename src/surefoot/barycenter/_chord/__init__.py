"""The descent with one eigendecomposition an input: from one point to the next by matrix products."""
