"""Inner parts of an upload: what is in it, as a file, and what is refused."""
