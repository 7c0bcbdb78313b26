"""Weights that stay in the blocks of their GGUF file: reading them, and computing with them."""
