"""Rated sentences, from the archive of the paper or of one's own."""

import pandas as pd
import pyarrow as pa
import pytest

from surefoot import data
from surefoot.data.frames import read_frame
from surefoot.errors import FileFormatError

FILES = {
    "tweets_GroundTruth.txt": "1\t2.5\tYay. Another good phone interview.\r\n2\t-1\tclichés, ¡no!",
    # a line separator and a next-line sign inside a sentence, which str.splitlines would cut at
    "nytEditorialSnippets_GroundTruth.txt": "1_1\t0.4\tnoon\u2028New\u0085York \r\n1_2\t0\tgame",
    "movieReviewSnippets_GroundTruth.txt": "1\t-3.5\tdull\tand tabbed\r\n",
    "amazonReviewSnippets_GroundTruth.txt": "309_8\t-2.75\tit did lock up",
}
ROWS = [
    ("tweets", "1", 2.5, "Yay. Another good phone interview."),
    ("tweets", "2", -1.0, "clichés, ¡no!"),
    ("editorials", "1_1", 0.4, "noon\u2028New\u0085York"),
    ("editorials", "1_2", 0.0, "game"),
    ("movies", "1", -3.5, "dull\tand tabbed"),
    ("products", "309_8", -2.75, "it did lock up"),
]


def rows(frame):
    return list(frame[["domain", "id", "rating", "text"]].itertuples(index=False, name=None))


def test_the_archive_and_its_folder(pack, tmp_path):
    members = {f"hutto/{name}": text.encode() for name, text in FILES.items()}
    archive = pack.tarred(tmp_path / "hutto_ICWSM_2014.tar.gz", members | {"hutto/x.pdf": b"-"})
    folder = tmp_path / "unpacked" / "hutto"
    folder.mkdir(parents=True)
    for name, text in FILES.items():
        (folder / name).write_bytes(text.encode())
    for path in (archive, tmp_path, folder):
        frame = data.load("sentiment4", path=path)
        assert rows(frame) == ROWS
        assert frame["rating"].dtype == "float64"
        assert list(frame.columns) == ["domain", "id", "rating", "text"]


@pytest.mark.parametrize("damage", [b"1\tmany\ttext", b"1 2 text", b"1\t2", b"1\t2\tclich\xe9"])
def test_damaged_ratings(pack, tmp_path, damage):
    members = {name: text.encode() for name, text in FILES.items()}
    members["tweets_GroundTruth.txt"] = damage
    path = pack.tarred(tmp_path / "x.tar.gz", members)
    with pytest.raises(FileFormatError, match=r"tweets_GroundTruth.txt is not id, rating and text"):
        data.load("sentiment4", path=path)


def test_incomplete_or_unreadable_archives(pack, tmp_path):
    path = pack.tarred(tmp_path / "x.tar.gz", {"tweets_GroundTruth.txt": b"1\t2\tx"})
    with pytest.raises(FileFormatError, match="holds no nytEditorialSnippets_GroundTruth.txt"):
        data.load("sentiment4", path=path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(FileFormatError, match="not a readable archive"):
        data.load("sentiment4", path=path)


OWN = pd.DataFrame({"sentence": ["good", "bad"], "label": [1, 0]})


def save_to_disk(frame, folder):
    """The layout that `datasets.Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink, \
            pa.ipc.new_stream(sink, table.schema) as writer:  # fmt: skip
        writer.write_table(table)
    (folder / "state.json").write_text('{"_data_files": []}')
    (folder / "dataset_info.json").write_text("{}")


def test_own_rows_in_every_format(tmp_path):
    OWN.to_csv(tmp_path / "own.csv", index=False)
    OWN.to_csv(tmp_path / "own.tsv", index=False, sep="\t")
    OWN.to_json(tmp_path / "own.jsonl", orient="records", lines=True)
    OWN.to_json(tmp_path / "own.json", orient="records")
    OWN.to_parquet(tmp_path / "own.parquet")
    save_to_disk(OWN, tmp_path / "own")
    for kind in (".csv", ".tsv", ".jsonl", ".json", ".parquet", ""):
        frame = data.load("sentiment4", path=tmp_path / f"own{kind}")
        assert rows(frame) == [("own", "0", 1.0, "good"), ("own", "1", 0.0, "bad")]


def test_a_repository_clone_keeps_its_splits(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / ".git").mkdir()
    OWN.to_parquet(tmp_path / "data" / "train-00000-of-00001.parquet")
    OWN.head(1).to_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet")
    OWN.to_parquet(tmp_path / ".git" / "hidden.parquet")
    frame = data.load("sentiment4", path=tmp_path)
    assert frame["split"].tolist() == ["train", "train", "validation"]
    assert frame["text"].tolist() == ["good", "bad", "good"]


def test_a_saved_dictionary_of_splits(tmp_path):
    save_to_disk(OWN, tmp_path / "d" / "train")
    save_to_disk(OWN, tmp_path / "d" / "test")
    (tmp_path / "d" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    frame = read_frame(tmp_path / "d")
    assert frame["split"].value_counts().to_dict() == {"train": 2, "test": 2}


def test_columns_of_ones_own_are_kept(tmp_path):
    frame = pd.DataFrame({"Text": ["x"], "Rating": [2], "Domain": ["books"], "ID": [17]})
    frame.to_csv(tmp_path / "own.csv", index=False)
    assert rows(data.load("sentiment4", path=tmp_path / "own.csv")) == [("books", "17", 2.0, "x")]


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ({"words": ["x"], "label": [1]}, "has the columns words, label; one of text, sentence"),
        ({"text": ["x"], "mood": [1]}, "one of rating, score, label, stars is needed"),
        ({"text": ["x"], "label": ["good"]}, "column 'label' must hold numbers"),
    ],
)
def test_own_rows_that_do_not_fit(tmp_path, frame, says):
    pd.DataFrame(frame).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(FileFormatError, match=says):
        data.load("sentiment4", path=tmp_path / "own.csv")


def test_own_files_that_cannot_be_read(tmp_path):
    with pytest.raises(FileFormatError, match="neither a file nor a folder"):
        data.load("sentiment4", path=tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match="holds no file of the kinds"):
        data.load("sentiment4", path=tmp_path)
    for name in ("x.parquet", "x.arrow", "x.json", "x.jsonl", "x.csv", "x.txt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(FileFormatError, match=rf"x\.{name[2:]}"):
            data.load("sentiment4", path=tmp_path / name)
