"""Inner parts of what a client does before it uploads."""
