"""The real archives, downloaded anew, by facts that others publish. Needs a network: `make acceptance`.

The files of each entry are fetched into a temporary cache and removed again.
"""

import json
import shutil
import struct

import numpy as np
import pytest

from surefoot import data
from surefoot.data.catalogue import CATALOGUE

pytestmark = pytest.mark.acceptance


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Fetch into an empty cache, check every hash, load; clean up afterwards."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("SUREFOOT_DATA", str(cache))

    def load(name):
        said = []
        where = data.fetch(name, progress=said.append)
        assert data.verify(name) == where
        assert len([line for line in said if line.startswith("downloading")]) == (
            where == cache / name
        )
        entry = next(entry for entry in data.available() if entry.name == name)
        assert entry.present
        assert entry.location == where
        kept = sum((where / path).stat().st_size for path in CATALOGUE[name].files)
        assert entry.size_bytes == kept
        assert data.fetch(name) == where
        return data.load(name)

    yield load
    shutil.rmtree(cache, ignore_errors=True)


def test_mnist(fresh):
    mnist = fresh("mnist")
    assert mnist.x_train.shape == (50_000, 28, 28)
    assert mnist.x_val.shape == mnist.x_test.shape == (10_000, 28, 28)
    assert mnist.x_train.dtype == np.float32
    # the class counts of the original 60,000 and 10,000
    both = np.concatenate([mnist.y_train, mnist.y_val])
    assert np.bincount(both).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert np.bincount(mnist.y_test).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    assert mnist.y_train[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.y_test[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    # 0.1307 and 0.3081 are the mean and deviation everyone normalises MNIST with; over 256 instead
    # of 255 the mean would be 0.1302
    x = np.concatenate([mnist.x_train, mnist.x_val])
    assert x.mean(dtype=np.float64) == pytest.approx(0.1307, abs=5e-5)
    assert x.std(dtype=np.float64) == pytest.approx(0.3081, abs=5e-5)
    assert (x.min(), x.max()) == (0, 1)


def test_mnist5k_is_a_part_of_mnist(fresh):
    small, mnist = fresh("mnist5k"), fresh("mnist")
    assert small.x_train.shape == (5_000, 28, 28)
    assert np.bincount(small.y_train).tolist() == [500] * 10
    known = {
        image.tobytes(): label
        for x, y in ((mnist.x_train, mnist.y_train), (mnist.x_val, mnist.y_val))
        for image, label in zip(x, y, strict=True)
    }
    # bit for bit, although one source stores bytes and the other floats of pixel / 256
    labels = [known.get(image.tobytes()) for image in small.x_train]
    assert labels == small.y_train.tolist()


def test_sentiment4(fresh):
    frame = fresh("sentiment4")
    assert frame["domain"].value_counts().to_dict() == {
        "movies": 10_605, "editorials": 5_190, "tweets": 4_200, "products": 3_708,
    }  # fmt: skip
    assert len(frame) == 23_703
    assert frame["rating"].between(-4, 4).all()
    assert not frame.duplicated(["domain", "id"]).any()
    assert (frame["text"].str.len() > 0).all()
    movies = frame[frame["domain"] == "movies"]
    assert int((movies["rating"] > 0.5).sum()) == 4_982
    assert int((movies["rating"] < -0.5).sum()) == 5_061
    first = frame.iloc[0]
    assert first["text"].startswith("Somehow I was blessed with some really amazing friends")
    assert first["rating"] == 2.726315789
    # UTF-8 shows as accents; read as latin-1 it would show as Ã and a sign
    assert "the clichés disappear" in movies.iloc[92]["text"]
    assert not frame["text"].str.contains("Ã|Â|\ufffd").any()


# trials for training and test, channels, samples: from the description beside each set
EEG = {
    "Blink": (500, 450, 4, 510, 255, ("LongBlink", "ShortBlink")),
    "EyesOpenShut": (56, 42, 14, 128, 128, ("0", "1")),
    "FingerMovements": (316, 100, 28, 50, 100, ("left", "right")),
    "HandMovementDirection": (160, 74, 10, 400, 400, ("right", "forward", "left", "backward")),
    "KDD_Example": (40, 40, 4, 100, 112.5, ("rest", "task")),
    "SelfRegulationSCP1": (268, 293, 6, 896, 256, ("negativity", "positivity")),
    "SelfRegulationSCP2": (200, 180, 7, 1152, 256, ("negativity", "positivity")),
}


def test_eeg(fresh):
    sets = fresh("eeg")
    assert list(sets) == sorted(EEG)
    for name, (n, t, channels, time, rate, classes) in EEG.items():
        trials = sets[name]
        assert trials.x.shape == (n, channels, time)
        assert trials.x_test.shape == (t, channels, time)
        assert trials.y.shape == (n,)
        assert trials.y_test.shape == (t,)
        assert (trials.rate, trials.classes) == (rate, classes)
        assert set(trials.y) == set(trials.y_test) == set(range(len(classes)))
        assert np.isfinite(trials.x).all()
        assert np.isfinite(trials.x_test).all()
    # 135 negative and 133 positive trials, the first of which begins so
    scp1 = sets["SelfRegulationSCP1"]
    assert np.bincount(scp1.y).tolist() == [135, 133]
    assert scp1.x[0, 0, :3].tolist() == [23.0, 21.66, 20.84]


def test_basic_motions(fresh):
    motions = fresh("basic_motions")
    # 40 and 40 recordings of ten seconds, a tenth of a second apart, ten of each activity in either half
    assert motions.x.shape == motions.x_test.shape == (40, 6, 100)
    assert motions.classes == ("Standing", "Running", "Walking", "Badminton")
    assert motions.rate == 10
    for x, y in ((motions.x, motions.y), (motions.x_test, motions.y_test)):
        assert np.isfinite(x).all()
        assert np.bincount(y).tolist() == [10, 10, 10, 10]
    # who stands still moves less than who runs, in every channel
    still, running = (np.std(motions.x[motions.y == c], axis=(0, 2)) for c in (0, 1))
    assert (still < running).all()


def test_minilm(fresh):
    folder = fresh("minilm")
    config = json.loads((folder / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"]) == (384, 6)
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    sizes = [np.prod(t["shape"]) for name, t in header.items() if "position_ids" not in name]
    assert int(sum(sizes)) == 22_713_216


def test_minilm_understands(fresh):
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")
    import torch

    folder = fresh("minilm")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    words = ["A man is eating food.", "A man eats a meal.", "The stock market fell."]
    tokens = tokenizer(words, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    assert pooled[0] @ pooled[1] > 0.7
    assert pooled[0] @ pooled[2] < 0.2


def test_smollm2(fresh):
    found = fresh("smollm2")
    assert found.gguf_file == "SmolLM2-135M-Instruct.Q4_1.gguf"
    with (found.folder / found.gguf_file).open("rb") as file:
        magic, version, tensors = struct.unpack("<4sIQ", file.read(16))
    # 30 layers of 9 tensors, the embedding and the last norm
    assert (magic, version, tensors) == (b"GGUF", 3, 30 * 9 + 2)


def test_smollm2_speaks(fresh):
    for extra in ("transformers", "gguf", "accelerate"):
        pytest.importorskip(extra, reason="needs the extra llm")
    import torch

    model, tokenizer = fresh("smollm2").open()
    # A model that still counts as quantised would be refused by Trainer.
    assert not getattr(model, "is_quantized", False)
    assert model.dtype == torch.float32
    tokens = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        following = model(**tokens).logits[0, -1].argmax()
    assert tokenizer.decode(following).strip() == "Paris"


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on this machine")
def test_wordnet(fresh):
    found = fresh("wordnet")
    counts = {"3.1": 82_192, "3.0": 82_115}
    nouns = found.nouns
    assert len(nouns) == counts[found.version]
    assert nouns["lemmas"].iloc[0] == ("entity",)
    assert nouns["offset"].is_unique
    by_offset = nouns.set_index("offset")
    # every hyponym is itself a noun of this database
    assert {o for kinds in nouns["hyponyms"] for o in kinds} <= set(by_offset.index)
    dog = next(row for row in nouns.itertuples() if row.lemmas[:2] == ("dog", "domestic dog"))
    assert dog.category == "animal"
    assert dog.gloss.startswith("a member of the genus Canis")
    kinds = {by_offset.loc[o].lemmas[0] for o in dog.hyponyms}
    assert {"puppy", "poodle", "corgi"} <= kinds


@pytest.mark.skipif(
    not next(e for e in data.available() if e.name == "fashion").present,
    reason="the Debian package dataset-fashion-mnist is not on this machine",
)
def test_fashion():
    is_fashion(data.load("fashion"))


def is_fashion(found):
    assert found.x_train.shape == (60_000, 28, 28)
    assert found.x_test.shape == (10_000, 28, 28)
    assert np.bincount(found.y_train).tolist() == [6_000] * 10
    assert np.bincount(found.y_test).tolist() == [1_000] * 10
    # the mean and deviation everyone normalises Fashion-MNIST with
    assert found.x_train.mean(dtype=np.float64) == pytest.approx(0.2860, abs=5e-5)
    assert found.x_train.std(dtype=np.float64) == pytest.approx(0.3530, abs=5e-5)
