"""What the theorems need to know of a run, read off its record."""
