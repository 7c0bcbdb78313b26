"""The parts of a zeroth-order step."""
