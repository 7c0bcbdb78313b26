"""Results and ledgers show themselves: a line as a repr, a table in a notebook, for every method alike."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch

import surefoot
from surefoot._showing import entries, showing
from surefoot.certificate import certify
from surefoot.guarantee import Guarantee
from surefoot.record import Record

# Has certificates and is no result: an optimizer, a model, a strategy, an accountant.
SHOWN_OTHERWISE = {
    "surefoot.architecture._autoencoder.certified.Certified",
    "surefoot.callbacks.watching.Watching",
    "surefoot.federated.strategy.DeterministicFedAvg",
    "surefoot.finetune.doors.private_training.PrivateTraining",
    "surefoot.finetune.doors.training.Training",
    "surefoot.lora.doors.flower.RacStrategy",
    "surefoot.nesterov._optimizer.lookahead.LookAhead",
    "surefoot.privacy.doors.opacus_accountant.LastIterateAccountant",
    "surefoot.prototypes.doors.strategy.MPFTStrategy",
    "surefoot.reparam._optimizer.facts.Recorded",
    "surefoot.study.Part",
    "surefoot.zeroth_order.doors.flower.ScalarStrategy",
    "surefoot.zeroth_order.optimizer.ZerothOrder",
}


def classes():
    """Every class of the package, by its full name; doors whose library is missing are left out."""
    found = {}
    for module in pkgutil.walk_packages(surefoot.__path__, "surefoot."):
        if module.name.endswith("__main__"):
            continue
        try:
            loaded = importlib.import_module(module.name)
        except ImportError:
            continue
        for name, value in vars(loaded).items():
            if inspect.isclass(value) and value.__module__ == module.name:
                found[f"{module.name}.{name}"] = value
    return found


CLASSES = classes()
SHOWN = {
    n: c
    for n, c in CLASSES.items()
    if getattr(vars(c).get("_repr_html_"), "__module__", "") == showing.__module__
}


class Balanced(HTMLParser):
    """Fails on an element that is closed without having been opened; knows those that need no end."""

    free = frozenset(("br", "hr", "img", "meta", "link", "input"))
    optional = frozenset(("td", "th", "tr", "li", "dt", "dd"))

    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.free:
            self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open[-1] != tag and self.open[-1] in self.optional:
            self.open.pop()
        assert self.open[-1:] == [tag], f"</{tag}>"
        self.open.pop()


def fragment(value):
    html = value._repr_html_()
    parser = Balanced()
    parser.feed(html)
    assert parser.open == []
    assert parser.tags[0] == "article"
    assert "script" not in parser.tags
    return html


def test_everything_that_has_certificates_shows_itself():
    lacking = {
        name
        for name, c in CLASSES.items()
        if "certificates" in vars(c) and not hasattr(c, "_repr_html_") and not inspect.isabstract(c)
        and not getattr(c, "_is_protocol", False)
    }  # fmt: skip
    assert lacking <= SHOWN_OTHERWISE
    assert len({name.split(".")[1] for name in SHOWN}) >= 11  # ten methods, and the core


SAMPLES = {
    "float": 0.123456789, "int": 3, "bool": True, "str": "a word", "Tensor": torch.zeros(200, 3),
    "ndarray": np.zeros((200, 3)), "list": [1.0] * 500, "dict": {str(i): i for i in range(500)},
}  # fmt: skip


def sample(annotation):
    text = str(annotation)
    fits = (v for k, v in SAMPLES.items() if re.search(rf"\b{k}\b", text))
    return next(fits, SAMPLES["list"])


@pytest.mark.parametrize("name", sorted(n for n, c in SHOWN.items() if dataclasses.is_dataclass(c)))
def test_a_result_full_of_numbers_has_a_short_repr(name):
    """Whatever its fields hold, and also where its certificates cannot be made of them."""
    made = object.__new__(SHOWN[name])
    for field in dataclasses.fields(made):
        held = [] if field.name == "certificates" else sample(field.type)
        object.__setattr__(made, field.name, held)
    own = "__repr__" in vars(SHOWN[name]) and "showing" not in SHOWN[name].__repr__.__module__
    if not own:
        assert len(repr(made)) < 200
        assert "\n" not in repr(made)
        assert repr(made).startswith(f"<{SHOWN[name].__name__}")
    text = fragment(made)
    assert SHOWN[name].__name__ in text
    assert len(text) < 60_000


@showing
@dataclasses.dataclass(frozen=True)
class Result:
    """A result with everything that can be in one."""

    loss: float
    steps: int
    name: str
    weights: torch.Tensor
    record: Record
    nothing: float | None = None
    secret: float = dataclasses.field(default=1.0, repr=False)

    def certificates(self):
        """One claim."""
        if self.steps == 0:
            raise ValueError("no step was <taken>")
        bound = Guarantee(
            name="claim <1>", statement="x_n <= 2", source="here", quantity="x", sense="upper",
            holds_in="every run", bound=lambda r: 2.0,
        )  # fmt: skip
        return [certify(self.record, bound)]


@pytest.fixture
def result():
    record = Record()
    record.extend(0, "x", [1.0, 1.5, 1.0])
    return Result(0.25, 3, "<b>", torch.zeros(4, 5), record)


def test_the_line(result):
    assert repr(result) == (
        "<Result: loss = 0.25, steps = 3, name = <b>, weights = 4x5 of float32, "
        "record = 1 seed(s), 1 quantities>"
    )


def test_the_table_has_the_certificates_with_their_verdicts(result):
    text = fragment(result)
    assert ">KEPT</span>" in text
    assert "<math" in text
    assert "0.75" in text
    assert "claim &lt;1&gt;" in text
    assert "<b>" not in text.replace("<b>0", "")
    assert "secret" not in text


def test_a_certificate_that_cannot_be_made_is_said(result):
    text = fragment(dataclasses.replace(result, steps=0))
    assert "No certificate: no step was &lt;taken&gt;" in text


def test_the_style_stays_inside(result):
    style = re.search(r"<style>(.*?)</style>", fragment(result), re.S)[1]
    assert style.startswith(".surefoot {")
    assert not re.search(r"(^|[};])\s*(body|html|:root)\b", style)


def test_entries_leave_out_what_is_not_there(result):
    assert [name for name, _ in entries(result)] == ["loss", "steps", "name", "weights", "record"]
    assert dict(entries(dataclasses.replace(result, loss=float("nan")))).keys().isdisjoint({"loss"})
