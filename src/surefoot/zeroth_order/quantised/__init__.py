"""Fine-tuning on a base that stays in the blocks of its GGUF file (Q4_0, Q4_1, Q8_0).

```python
from surefoot.zeroth_order import LOZO, quantised

model = quantised.load_gguf("SmolLM2-135M-Instruct.Q4_1.gguf")
optimizer = LOZO(model, 1e-6, fold=False, scale="unit")
```
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
