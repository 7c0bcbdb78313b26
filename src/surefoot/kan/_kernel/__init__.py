"""How a spline layer is computed: a C kernel where there is a compiler, torch everywhere."""
