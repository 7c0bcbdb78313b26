"""Inside of the search: what is descended in, what is minimised, how the best is kept."""
