"""The steps of the probe, one file each."""
