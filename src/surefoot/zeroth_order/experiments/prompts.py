"""Prompts and label words of LM-BFF (arXiv 2012.15723, Table 1), for part few-shot."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prompt:
    """A template of {text}, {second} and {mask}, and the word of each class in the order of the labels."""

    template: str
    words: tuple[str, ...]


PAIR = "{text}? {mask}, {second}"
PROMPTS = {
    "sst2": Prompt("{text} It was {mask}.", (" terrible", " great")),
    "sst5": Prompt("{text} It was {mask}.", (" terrible", " bad", " okay", " good", " great")),
    "snli": Prompt(PAIR, (" Yes", " Maybe", " No")),
    "mnli": Prompt(PAIR, (" Yes", " Maybe", " No")),
    "rte": Prompt(PAIR, (" Yes", " No")),
    "trec": Prompt(
        "{mask}: {text}",
        (" Expression", " Entity", " Description", " Human", " Location", " Number"),
    ),
}
