"""Images in folders, behind an encoder of a library that is stood in for."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from surefoot.errors import FileFormatError, SurefootError
from surefoot.prototypes.config import PrototypesConfig
from surefoot.prototypes.doors.vision import parsed, vision_encoder
from surefoot.prototypes.experiments import folders
from surefoot.prototypes.experiments.settings import setting_of
from surefoot.prototypes.image_folders import domain_images

CLASSES = ("alarm_clock", "bee", "cat")


@pytest.fixture
def root(tmp_path):
    """Two domains of three classes, one of them in a single domain."""
    rng = np.random.default_rng(0)
    for d, domain in enumerate(("photo", "sketch")):
        for c, name in enumerate(CLASSES[: 3 - d]):
            (tmp_path / "set" / domain / name).mkdir(parents=True)
            for i in range(6):
                pixels = rng.integers(0, 60, (5, 5, 3), dtype=np.uint8)
                pixels[..., c] += 180
                Image.fromarray(pixels).save(tmp_path / "set" / domain / name / f"{i}.png")
    (tmp_path / "set" / ".git").mkdir()
    (tmp_path / "set" / "photo" / "bee" / "list.txt").write_text("no image")
    return tmp_path / "set"


class Colours(nn.Module):
    """Mean colour: a stand-in of open_clip's model, and of its text side."""

    def encode_image(self, batch):
        return batch.mean((2, 3))

    def encode_text(self, tokens):
        return tokens


@pytest.fixture
def open_clip(monkeypatch, tmp_path):
    """A module with the three functions that are called, and a file of weights."""
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    asked = []

    def create(name, pretrained):
        asked.append((name, pretrained))

        def transform(image):
            return torch.as_tensor(np.asarray(image) / 255.0).permute(2, 0, 1).float()

        return Colours(), None, transform

    def tokenizer(name):
        names = [c.replace("_", " ") for c in CLASSES]
        return lambda prompts: torch.stack(
            [torch.eye(3)[next(i for i, n in enumerate(names) if n in p)] + 0.1 for p in prompts]
        )

    module = SimpleNamespace(create_model_and_transforms=create, get_tokenizer=tokenizer)
    monkeypatch.setitem(sys.modules, "open_clip", module)
    monkeypatch.setenv("SUREFOOT_DATA", str(tmp_path / "data"))
    folders._embedded.cache_clear()
    yield SimpleNamespace(vision=f"open_clip:ViT-B-32:{weights}", asked=asked, weights=weights)
    folders._embedded.cache_clear()


def test_every_image_has_its_domain_and_class(root):
    found = domain_images(root)
    assert found.domain_names == ("photo", "sketch")
    assert found.classes == CLASSES
    assert len(found) == 30
    for file, label, domain in zip(found.files, found.labels, found.domains, strict=True):
        assert file.parts[-3:-1] == (found.domain_names[domain], found.classes[label])
    assert found.prompts()[0][0] == "a photo of a alarm clock"
    few = domain_images(root, classes=2)
    assert few.classes == CLASSES[:2]
    assert len(few) == 24


def test_folders_that_are_none(root, tmp_path):
    with pytest.raises(FileFormatError, match="is no folder"):
        domain_images(tmp_path / "nowhere")
    with pytest.raises(FileFormatError, match="two domains and classes"):
        domain_images(root / "photo")
    with pytest.raises(ValueError, match="classes must be"):
        domain_images(root, classes=-1)


@pytest.mark.parametrize(
    "vision", ["", "ViT-B-32", "clip:ViT:/x", "open_clip::/x", "timm:resnet50:"]
)
def test_an_encoder_is_named_in_three_parts(vision):
    with pytest.raises(ValueError, match="open_clip:NAME:WEIGHTS"):
        parsed(vision)


def test_weights_and_library_must_be_there(monkeypatch, tmp_path):
    with pytest.raises(FileFormatError, match="no file of weights"):
        parsed(f"timm:resnet50:{tmp_path / 'none.pt'}")
    (tmp_path / "w.pt").write_bytes(b"w")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(SurefootError, match="pip install timm"):
        vision_encoder(f"timm:resnet50:{tmp_path / 'w.pt'}")


def test_the_study_s_domains_from_folders(root, open_clip):
    config = PrototypesConfig(images=root, vision=open_clip.vision)
    found = setting_of("folders", config, 0)
    assert open_clip.asked == [("ViT-B-32", str(open_clip.weights))]
    assert [d.name for d in found.domains] == ["photo", "sketch"]
    assert found.head.scale == 100.0
    assert found.head.classes == 3
    assert found.encoder.startswith("open_clip ViT-B-32 ")
    # Colours tell the classes: embeddings and labels have stayed together, in files and prompts.
    for domain in found.domains:
        for z, y in (domain.train, domain.val, domain.test):
            assert torch.equal(found.head(z).argmax(1), y)
    # Kept on disk: another process asks the encoder for prompts only.
    folders._embedded.cache_clear()
    again = setting_of("folders", config, 0)
    assert torch.equal(again.domains[0].train[0], found.domains[0].train[0])


def test_an_encoder_without_texts_takes_the_clients_class_means(root, open_clip, monkeypatch):
    monkeypatch.setattr(
        "surefoot.prototypes.doors.vision.vision_encoder",
        lambda vision: (vision_encoder(vision)[0], None),
    )
    found = setting_of("folders", PrototypesConfig(images=root, vision=open_clip.vision), 0)
    means = [d.train[0][d.train[1] == 0].mean(0) for d in found.domains]
    expected = nn.functional.normalize(torch.stack(means).mean(0), dim=0) * 100
    torch.testing.assert_close(found.head.weight[0], expected)


def test_a_damaged_image_is_named(root, open_clip):
    (root / "photo" / "bee" / "3.png").write_bytes(b"not an image")
    with pytest.raises(FileFormatError, match="3.png is no readable image"):
        setting_of("folders", PrototypesConfig(images=root, vision=open_clip.vision), 0)
