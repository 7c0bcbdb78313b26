"""The practical run: L-BFGS on the loss of a problem. No theorem here speaks of it."""
