"""The parts of a block: its layers and factors, its merge, its state."""
