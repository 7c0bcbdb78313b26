"""The parts of the probes: noise, projections, what a run measures on its way."""
