from ._basis.bspline import Grid as Grid
