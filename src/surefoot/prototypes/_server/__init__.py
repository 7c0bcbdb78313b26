"""Inner parts of what the server does with prototypes."""
