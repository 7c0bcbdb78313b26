from .comparison import Claimed as Claimed
from .comparison import Comparison as Comparison
from .comparison import Difference as Difference
from .comparison import Measured as Measured
from .comparison import compare as compare
from .page import write_comparison as write_comparison
