from .doors.lightning import LightningWatchCallback as LightningWatchCallback
from .doors.transformers import WatchCallback as WatchCallback
