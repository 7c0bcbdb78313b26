"""What the two-layer network and the rows of its residuals are made of."""
