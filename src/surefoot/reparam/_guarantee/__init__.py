"""The conditions of the theorems: the rules, and how they are read off a record."""
