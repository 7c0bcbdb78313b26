"""The conditions of the rates, and how they are read off a record."""
