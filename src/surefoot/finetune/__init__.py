"""Fine-tune a pretrained model on a file of texts: which methods fit, at which rate, with what promised.

```python
from surefoot.finetune import FinetuneConfig, finetune

result = finetune(FinetuneConfig("minilm", "reviews.csv", method="lora", out="tuned"))
print(result)
```
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
