"""Forms of a network outside torch."""
