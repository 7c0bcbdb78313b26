from .looped import LoopedTransformer as LoopedTransformer
from .prompts import GaussianPrompts as GaussianPrompts
from .prompts import Prompt as Prompt
