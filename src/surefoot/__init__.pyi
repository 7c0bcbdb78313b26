from ._run.execute import run_study as run_study
from .certificate import Certificate as Certificate
from .certificate import certify as certify
from .errors import SurefootError as SurefootError
from .guarantee import Assumption as Assumption
from .guarantee import Guarantee as Guarantee
from .guarantee import Verdict as Verdict
from .listing import certificates as certificates
from .record import Record as Record
from .study import Part as Part
from .study import Study as Study
from .study import StudyConfig as StudyConfig
from .watching import Watch as Watch
from .watching import watch as watch

__version__: str
