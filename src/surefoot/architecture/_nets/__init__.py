"""Batches of networks: their family, their matrix form, the plain networks they stand for."""
