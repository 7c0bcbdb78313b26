"""Prompts as text: what is written, what is read, and what happens to answers that are no numbers."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from surefoot.in_context import ProbeError, TextPredictor, probe
from surefoot.in_context.text import read_number, write_prompt

from . import hidden


def parsed(text):
    """A prompt back from its text, without the library."""
    lines = [line for line in text.split("\n") if line]
    numbers = [[float(v) for v in line[2:].split(",") if v.strip()] for line in lines]
    xs, ys = numbers[0::2], numbers[1::2]
    return np.array(xs[:-1]).T, np.array([y[0] for y in ys[:-1]]), np.array(xs[-1])


def calculator(fn, digits):
    """Something that reads a prompt's text and writes the number that an algorithm gives."""

    def answer(texts):
        found = []
        for text in texts:
            X, y, xq = (torch.tensor(v)[None] for v in parsed(text))
            found.append(f" {float(fn(X, y, xq)):.{digits}f}\n\nx: 1.0")
        return found

    return answer


def test_a_prompt_is_written_out():
    X = torch.tensor([[0.5, -1.0], [0.12345, -0.00001]], dtype=torch.float64)
    text = write_prompt(X, torch.tensor([1.0, 2.5]).double(), torch.tensor([0.0, 3.0]).double(), 2)
    assert text == "x: 0.50, 0.12\ny: 1.00\n\nx: -1.00, 0.00\ny: 2.50\n\nx: 0.00, 3.00\ny:"


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        (" 1.25\n\nx: ", 1.25), ("-0.5", -0.5), (" −3 ", -3), ("+2.\n", 2), (".5", 0.5), ("1e-3\n", 1e-3),
        ("\n 4", 4), ("0", 0),
    ],
)  # fmt: skip
def test_a_number_is_read(answer, value):
    assert read_number(answer) == value


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        "about 2",
        "1,200",
        "3/4",
        "1.2.3",
        "2x",
        "x",
        "nan",
        "inf",
        "1e999",
        "--1",
        "5%",
        "$3",
    ],
)
def test_what_is_no_number_is_not_made_one(answer):
    assert math.isnan(read_number(answer))


@given(st.floats(-1e6, 1e6), st.integers(0, 8))
def test_what_is_written_is_read_back(value, digits):
    empty = torch.zeros(1, 0, dtype=torch.float64)
    query = torch.tensor([value], dtype=torch.float64)
    text = write_prompt(empty, empty[0], query, digits)
    written = re.fullmatch(r"x: (\S+)\ny:", text)[1]
    assert "-0." not in written or float(written) != 0
    assert read_number(written) == pytest.approx(value, abs=0.5001 * 10.0**-digits)


def test_gradient_descent_behind_text_is_found():
    A = hidden.near_identity(2)
    fn = TextPredictor(calculator(hidden.descent([A] * 2), 10), digits=8)
    report = probe(fn, d=2, n=8, max_loops=3, size=24)
    assert (report.verdict, report.loops) == ("gd", 2)
    np.testing.assert_allclose(report.A.numpy(), A, atol=1e-5)
    assert report.abstained == report.unanswered == 0
    assert report.facts["answers without a number"] == f"0 of {fn.asked}"
    assert report.answers == fn.asked == 24 * 2 + 24 * 4 + 8 + 8 + 4


def test_with_two_decimals_even_gradient_descent_is_not_linear_and_the_report_says_why():
    fn = TextPredictor(calculator(hidden.descent(hidden.steps(0.6, d=2)), 2), digits=2)
    report = probe(fn, d=2, n=8, max_loops=1, size=12)
    assert report.verdict.startswith("not linear")
    assert "smallest error that can be seen: 0.01" in str(report)


def test_answers_without_a_number_leave_their_prompts_out_and_are_counted():
    solve = calculator(hidden.solved(0), 8)

    def answer(texts):
        # Whoever hesitates on a prompt does so every time.
        return [
            "I am not sure." if parsed(text)[0][0, 0] > 1 else number
            for text, number in zip(texts, solve(texts), strict=True)
        ]

    fn = TextPredictor(answer, digits=6)
    report = probe(fn, d=2, n=8, max_loops=1, size=60)
    assert report.verdict == "ols"
    # A sixth of all normal numbers are above 1.
    assert 8 <= report.unanswered <= 36
    assert report.fitted + report.held + report.unanswered == 120
    assert report.abstained == fn.unreadable >= report.unanswered
    assert f"{report.abstained} without an answer" in str(report)
    assert fn.examples_unreadable[0] == "I am not sure."


def test_where_hardly_anything_is_answered_there_is_no_verdict():
    with pytest.raises(ProbeError, match="only 0 and 0 of 8 and 8 prompts in full.*68 of 68"):
        probe(TextPredictor(lambda texts: ["?"] * len(texts)), d=2, n=5, max_loops=1, size=8)


def test_whoever_abstains_must_do_so_twice():
    turn = iter(range(100))

    def answer(texts):
        return ["1.0" if next(turn) % 2 else "hm"] * len(texts)

    with pytest.raises(ProbeError, match="two answers"):
        probe(TextPredictor(answer), d=2, n=5, max_loops=1, size=8)


def test_an_answer_is_needed_for_every_prompt():
    with pytest.raises(ProbeError, match="got 1 for 8 prompts"):
        probe(TextPredictor(lambda texts: ["1"]), d=2, n=5, max_loops=1, size=8)


@pytest.mark.parametrize(
    ("given", "words"),
    [({"digits": -1}, "digits"), ({"digits": 1.5}, "digits"), ({"answer": 3}, "answer")],
)
def test_settings_out_of_range_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        TextPredictor(**({"answer": list} | given))


# -- a real, tiny, untrained language model --------------------------------------------------------


@pytest.fixture(scope="module")
def speaker():
    """A random Llama of two layers that spells, and its tokenizer."""
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = [*"0123456789.,-:xy \n", "<end>"]
    spell = Tokenizer(models.WordLevel({c: i for i, c in enumerate(letters)}, unk_token="<end>"))
    spell.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    spell.decoder = decoders.Fuse()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=spell, eos_token="<end>", pad_token="<end>"
    )
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=len(letters), hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256, eos_token_id=len(letters) - 1,
        initializer_range=0.5,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config), tokenizer


def prompts_of(count, n=3):
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(*s, dtype=torch.float64, generator=rng)
            for s in ((count, 2, n), (count, n), (count, 2))]  # fmt: skip


def test_a_language_model_is_asked_greedily_and_left_in_its_mode(speaker):
    from surefoot.in_context import LanguageModelPredictor

    model, tokenizer = speaker
    model.train()
    fn = LanguageModelPredictor(model, tokenizer, digits=2, max_new_tokens=6)
    given = prompts_of(6)
    one, two = fn(*given), fn(*given)
    assert torch.equal(one.nan_to_num(99), two.nan_to_num(99))
    assert model.training
    lengths = [
        len(tokenizer(write_prompt(*each, 2))["input_ids"]) for each in zip(*given, strict=True)
    ]
    assert fn.prompt_tokens == (min(lengths), max(lengths))
    assert fn.asked == 12
    assert fn.unreadable == 2 * int(one.isnan().sum())
    assert fn.facts["tokens of a prompt"] == [min(lengths), max(lengths)]
    together = LanguageModelPredictor(model, tokenizer, digits=2, max_new_tokens=6, batch_size=4)
    assert torch.equal(together(*given).nan_to_num(99), one.nan_to_num(99))


class Writes:
    """A model that writes one text, token by token, as `generate` of transformers does."""

    def __init__(self, model, tokenizer, text):
        self.device, self.config, self.generation_config = (
            model.device,
            model.config,
            model.generation_config,
        )
        self.training = False
        self.text = tokenizer(text, return_tensors="pt")["input_ids"]

    def eval(self):
        return self

    def train(self, mode):
        return self

    def generate(self, input_ids, max_new_tokens, stopping_criteria, **more):
        out = input_ids
        for at in range(min(max_new_tokens, self.text.shape[1])):
            out = torch.cat([out, self.text[:, at : at + 1]], 1)
            if stopping_criteria(out, None).all():
                break
        self.written = out.shape[1] - input_ids.shape[1]
        return out


def test_an_answer_ends_with_its_line_and_what_is_cut_off_is_no_number(speaker):
    from surefoot.in_context import LanguageModelPredictor

    given = prompts_of(1)
    model = Writes(*speaker, " -12.5\n\nx: 3")
    fn = LanguageModelPredictor(model, speaker[1], max_new_tokens=12)
    assert fn(*given).tolist() == [-12.5]
    assert model.written == len(" -12.5\n")
    short = LanguageModelPredictor(model, speaker[1], max_new_tokens=3)
    # " -1" would read as -1.
    assert math.isnan(short(*given).item())
    assert (short.cut_off, short.unreadable) == (1, 1)
    over = Writes(*speaker, " 7")
    over.text = torch.cat([over.text, torch.tensor([[speaker[1].eos_token_id]])], 1)
    ended = LanguageModelPredictor(over, speaker[1], max_new_tokens=3)
    assert ended(*given).tolist() == [7.0]


def test_a_prompt_that_is_too_long_for_the_model_is_refused(speaker):
    from surefoot.in_context import LanguageModelPredictor

    fn = LanguageModelPredictor(*speaker, digits=2)
    with pytest.raises(ProbeError, match="the model takes 256"):
        fn(*prompts_of(1, n=20))


def test_what_is_no_language_model_is_refused(speaker):
    from surefoot.in_context import LanguageModelPredictor

    model, tokenizer = speaker
    with pytest.raises(ValueError, match="model must be one of transformers"):
        LanguageModelPredictor(gd_of_nothing, tokenizer)
    with pytest.raises(ValueError, match="tokenizer must be one of transformers"):
        LanguageModelPredictor(model, None)
    with pytest.raises(ValueError, match="max_new_tokens"):
        LanguageModelPredictor(model, tokenizer, max_new_tokens=0)


def gd_of_nothing(X, y, xq):
    return xq[:, 0]
