"""What single edges of a network are: their curves, their size, the small ones removed, their formulas."""
