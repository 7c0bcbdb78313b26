"""Models of other libraries as callables that the probe takes."""
