"""Inside of the autoencoder: encoders, decoders, what they decode to, its loss, its training, its file."""
