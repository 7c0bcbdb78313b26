from ._basis.bspline import Grid as Grid
from .layer import KANLinear as KANLinear
from .layer import OutOfGridWarning as OutOfGridWarning
from .network import KAN as KAN
