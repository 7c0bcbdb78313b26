"""The parts of a re-parametrised block."""
