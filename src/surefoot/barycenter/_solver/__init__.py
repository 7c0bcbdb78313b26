"""From a request to a solution: starts, steps, means, history."""
