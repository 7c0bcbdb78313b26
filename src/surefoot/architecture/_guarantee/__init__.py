"""What is promised of the embedding, and how it is measured."""
