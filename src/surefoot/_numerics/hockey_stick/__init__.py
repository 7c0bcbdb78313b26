"""Exact privacy curves of shifted Gaussians, shared by the methods that account for privacy."""
