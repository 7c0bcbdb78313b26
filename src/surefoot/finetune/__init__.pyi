from .config import METHODS as METHODS
from .config import FinetuneConfig as FinetuneConfig
from .errors import FinetuneError as FinetuneError
from .result import FinetuneResult as FinetuneResult
from .running import finetune as finetune
from .texts import Texts as Texts
from .texts import read_texts as read_texts
