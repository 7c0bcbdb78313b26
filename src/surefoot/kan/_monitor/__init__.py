"""Inner parts of the monitor."""
