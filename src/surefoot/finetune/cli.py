"""Fine-tune a model on a file of texts, in the memory that there is."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import tyro

from surefoot.finetune.config import FinetuneConfig

NAME = "finetune"


@dataclass(frozen=True)
class Finetune:
    """Fine-tune MODEL on DATA; the same command again goes on where it was interrupted."""

    config: tyro.conf.OmitArgPrefixes[FinetuneConfig]
    json: bool = False
    """Print JSON."""

    def __call__(self) -> int:
        from surefoot.finetune.running import finetune

        def say(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        result = finetune(self.config, say)
        print(json.dumps(result.to_dict(), indent=1) if self.json else result)
        broken = any(c.surprise and c.verdict == "BROKEN" for c in result.certificates)
        return 1 if broken else 0


COMMAND = Finetune
