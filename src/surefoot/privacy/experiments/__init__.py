"""The parts of the privacy study, a file each."""
