"""The parts of the study of accelerated descent, one file each."""
