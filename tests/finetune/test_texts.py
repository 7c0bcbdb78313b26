"""What is read from a file, how it is parted, and every file with which nothing can be done."""

import json

import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from surefoot.errors import FileFormatError
from surefoot.finetune import FinetuneError, Texts, read_texts

ROWS = [("NA", "1"), ("null", "0"), ('a "quoted", text\nof two lines', "1"), ("  b ", "0")]


def written(folder, kind, rows=ROWS, columns=("text", "label")):
    path = folder / f"rows.{kind}"
    table = pd.DataFrame(rows, columns=list(columns))
    if kind == "csv":
        table.to_csv(path, index=False)
    elif kind == "tsv":
        table.to_csv(path, index=False, sep="\t")
    elif kind == "parquet":
        table.to_parquet(path)
    else:
        path.write_text(
            "".join(json.dumps(dict(zip(columns, r, strict=True))) + "\n" for r in rows)
        )
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_texts_come_back_as_they_were_written(kind, tmp_path):
    """Also those that a reader of tables takes for missing values."""
    found = read_texts(written(tmp_path, kind))
    assert found.texts == tuple(text for text, _ in ROWS)
    assert found.classes == ("0", "1")
    assert found.labels == (1, 0, 1, 0)


def test_a_byte_order_mark_and_separators_inside_of_lines_are_no_part_of_the_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    # U+2028 may stand in a JSON string as it is.
    path.write_bytes(b"\xef\xbb\xbf" + '{"text": "one\u2028two", "label": 0}\n'.encode() * 2)
    with pytest.raises(FinetuneError, match="every label is '0'"):
        read_texts(path)
    assert read_texts(written(tmp_path, "csv"), "text").texts[0] == "NA"


def test_numbers_are_sorted_as_numbers_and_whole_ones_are_classes(tmp_path):
    rows = [("a", 10.0), ("b", 9.0), ("c", 10.0), ("d", 9.0)]
    assert read_texts(written(tmp_path, "parquet", rows)).classes == ("9", "10")


def test_without_a_column_of_labels_the_texts_are_alone(tmp_path):
    path = written(tmp_path, "csv", [("a", "x"), ("b", "y")], ("text", "other"))
    found = read_texts(path)
    assert found.labels is None
    assert found.classes == ()
    for nearly in ("Label", "labels", "LABELS"):
        rows = [("a", "x"), ("b", "y"), ("c", "x"), ("d", "y")]
        path = written(tmp_path, "csv", rows, ("text", nearly))
        with pytest.raises(FinetuneError, match=f"it has '{nearly}': say --label {nearly}"):
            read_texts(path)
        assert read_texts(path, label=nearly).classes == ("x", "y")


@pytest.mark.parametrize(
    ("rows", "columns", "options", "said"),
    [
        (ROWS, ("body", "label"), {}, "has no column 'text'; it has 'body', 'label': say which with --text"),
        (ROWS, ("text", "label"), {"label": "stars"}, "it has 'text', 'label': say which with --label$"),
        (ROWS, ("review", "Stars"), {"text": "reveiw"},
         "it has 'review', 'Stars': say which with --text, probably 'review'$"),
        (ROWS, ("text", "Stars"), {"label": "stars"},
         "it has 'text', 'Stars': say which with --label, probably 'Stars'$"),
        (ROWS, ("Text", "label"), {}, "it has 'Text', 'label': say which with --text, probably 'Text'$"),
        ([("a", "1"), ("b", "1")], ("text", "label"), {}, "every label is '1'; there must be two classes"),
        ([("a", "1"), ("  ", "0")], ("text", "label"), {}, "row 2: the text is empty"),
        ([("a", "1"), ("b", "")], ("text", "label"), {}, "row 2: label is empty"),
        ([(f"t{i}", i / 7) for i in range(20)], ("text", "label"), {}, "numbers are not predicted here"),
        ([], ("text", "label"), {}, "holds no rows"),
        (ROWS, ("text", "label"), {"label": "text"}, "text and label are both column 'text'"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_file_with_which_nothing_can_be_done_is_one_sentence(
    kind, rows, columns, options, said, tmp_path
):
    with pytest.raises(FinetuneError) as caught:
        read_texts(written(tmp_path, kind, rows, columns), **options)
    assert said in f"{caught.value}$"
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FinetuneError, match="is not a file"):
        read_texts(tmp_path / "missing.csv")
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    with pytest.raises(FinetuneError, match=r"must end in \.csv"):
        read_texts(tmp_path / "rows.xlsx")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(FileFormatError, match="cannot be read as Parquet"):
        read_texts(tmp_path / "rows.parquet")
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": 1}\n{"text": ')
    with pytest.raises(FileFormatError, match="line 2 is no JSON"):
        read_texts(tmp_path / "rows.jsonl")
    (tmp_path / "rows.csv").write_bytes("text,label\ncaf\xe9,1\n".encode("latin-1"))
    with pytest.raises(FileFormatError, match="cannot be read as CSV"):
        read_texts(tmp_path / "rows.csv")


@given(
    st.lists(
        st.builds(
            lambda word, label: (f"{word} {label}", label), st.integers(0, 30), st.integers(0, 1)
        ),
        min_size=30,
        max_size=90,
    ),
    st.integers(0, 2**31),
)
def test_the_parts_are_all_rows_and_share_no_text(rows, seed):
    """However often a text occurs: one that is in two parts would be learned by heart and then tested."""
    texts = Texts(tuple(t for t, _ in rows), tuple(y for _, y in rows), ("no", "yes"))
    assume(min(len({t for t, y in rows if y == label}) for label in (0, 1)) > 2)
    parts = texts.split(0.2, 0.2, seed)
    together = [
        pair for part in parts.values() for pair in zip(part.texts, part.labels, strict=True)
    ]
    assert sorted(together) == sorted(rows)
    words = [set(part.texts) for part in parts.values()]
    assert sum(map(len, words)) == len(set.union(*words))
    assert all(len(part) for part in parts.values())


def test_too_few_texts_for_three_parts_are_refused():
    with pytest.raises(FinetuneError, match="2 different texts of class 'no' are too few"):
        Texts(("a", "b", "b", "c", "d", "e"), (0, 0, 0, 1, 1, 1), ("no", "yes")).split(0.2, 0.2, 0)


def test_every_class_has_its_share_in_every_part():
    texts = Texts(tuple(map(str, range(200))), tuple([0] * 150 + [1] * 50), ("no", "yes"))
    parts = texts.split(0.2, 0.1, 3)
    assert {k: (p.labels.count(0), p.labels.count(1)) for k, p in parts.items()} == {
        "train": (105, 35),
        "validation": (30, 10),
        "test": (15, 5),
    }
    assert parts == texts.split(0.2, 0.1, 3)
    assert parts != texts.split(0.2, 0.1, 4)
