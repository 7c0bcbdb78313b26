"""The parts of the study of low-rank chains, one file each."""
