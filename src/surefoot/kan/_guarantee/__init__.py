"""Inner parts of the guarantees."""
