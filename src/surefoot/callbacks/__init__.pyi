from .lightning import LightningWatchCallback as LightningWatchCallback
from .transformers import WatchCallback as WatchCallback
