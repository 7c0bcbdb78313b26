"""The real case: a pretrained language model, given linear regression as text."""

import pytest

from surefoot import data

pytestmark = pytest.mark.acceptance


def test_smollm2_on_linear_regression_as_text(measured):
    for extra in ("transformers", "gguf", "accelerate"):
        pytest.importorskip(extra, reason="needs the extra llm")
    from surefoot.in_context import LanguageModelPredictor, probe

    model, tokenizer = data.load("smollm2").open()
    # 24 prompts a half: its error of linearity is hundreds of times the threshold, so that few will do, and
    # the interval says whether they did.
    asked = LanguageModelPredictor(model, tokenizer)
    report = probe(asked, d=2, n=8, size=24, max_loops=4)
    print(report)
    low, high = report.intervals["lin_q"]
    for what, value in (
        ("verdict", report.verdict), ("agreement of resamples", report.agreement),
        ("linearity in the query", f"{report.lin_q:.3g} [{low:.3g}, {high:.3g}]"),
        ("linearity in y", f"{report.lin_y:.3g} {report.intervals['lin_y']}"),
        ("best gradient descent", min(report.errors.values())),
        ("competitors", dict(report.competitors)),
        ("tokens of a prompt", asked.prompt_tokens),
        ("answers without a number", f"{asked.unreadable} of {asked.asked}"),
    ):  # fmt: skip
        measured(f"SmolLM2-135M, d = 2, n = 8: {what}", "reported", value)
    # Nothing was made up for what could not be read.
    assert report.abstained == asked.unreadable
    assert report.fitted + report.held + report.unanswered == 48
    assert report.verdict == "not linear in the query"
    assert low > 10 * 1e-3
    assert report.agreement == 1
