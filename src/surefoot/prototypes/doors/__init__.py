"""Doors to optional libraries."""
