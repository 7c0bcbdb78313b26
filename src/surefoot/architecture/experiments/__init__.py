"""The parts of the study, a file a part."""
