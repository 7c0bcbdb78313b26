from ._basis.bspline import Grid as Grid
from .two_layer import KAN2 as KAN2
