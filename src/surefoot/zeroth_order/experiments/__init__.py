"""The parts of the zeroth-order study, a file each."""
