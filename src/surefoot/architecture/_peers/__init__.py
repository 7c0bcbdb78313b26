"""What others do: dense networks of tried shapes, and pruning of the best."""
