"""Inner parts of `surefoot.watch`."""
