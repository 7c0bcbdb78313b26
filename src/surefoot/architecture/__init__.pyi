from .activations import ACTIVATIONS as ACTIVATIONS
from .activations import Activation as Activation
from .activations import MixedActivation as MixedActivation
from .net_batch import NetBatch as NetBatch
from .plain_modules import build_module as build_module
from .plain_modules import module_spec as module_spec
from .selection import Select as Select
from .space import MLPSpace as MLPSpace
