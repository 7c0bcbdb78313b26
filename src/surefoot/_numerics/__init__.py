"""Numerics that several methods share, each with a test of its own."""
