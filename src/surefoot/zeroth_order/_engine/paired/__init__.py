"""All copies of a step in one forward: batches repeated, tensors served per copy, losses taken apart."""
