"""The loops of transformers and Lightning."""
