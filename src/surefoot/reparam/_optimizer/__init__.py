"""What the optimisers here share."""
