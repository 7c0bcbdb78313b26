"""The parts of the study, a module each."""
