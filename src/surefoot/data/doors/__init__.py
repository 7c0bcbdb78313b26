"""Pretrained models through the libraries that open them."""
