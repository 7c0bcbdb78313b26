"""The one-dimensional functions of which every edge is a sum."""
