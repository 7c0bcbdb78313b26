"""Conditions of the theorems, as the record has them."""
