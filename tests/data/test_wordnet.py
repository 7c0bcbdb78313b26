"""The noun file of WordNet, as wndb(5WN) describes it."""

import pytest

from surefoot import data
from surefoot.errors import FileFormatError

LICENCE = "  1 This software is provided to you\n  14 WordNet 3.1 Copyright 2011 by Princeton\n"
ENTITY = (
    "00001740 03 n 01 entity 0 003 ~ 00001930 n 0000 ~i 00002137 n 0000 + 04431553 v 0101 "
    '| that which is | known; "an entity"  \n'
)
# eleven words: the count is hexadecimal
MANY = (
    "02086723 05 n 0b " + " ".join(f"dog_{i} {i:x}" for i in range(11)) + " 001 "
    "@ 02085998 n 0000 | a member of the genus Canis\n"
)


def test_synsets(tmp_path):
    (tmp_path / "data.noun").write_text(LICENCE + ENTITY + MANY)
    for path in (tmp_path, tmp_path / "data.noun"):
        found = data.load("wordnet", path=path)
        assert found.version == "3.1"
        entity, dog = found.nouns.itertuples(index=False)
        assert (entity.offset, entity.category, entity.lemmas) == (1740, "Tops", ("entity",))
        assert entity.hyponyms == (1930,)
        assert entity.gloss == 'that which is | known; "an entity"'
        assert dog.category == "animal"
        assert dog.lemmas == tuple(f"dog {i}" for i in range(11))
        assert dog.hyponyms == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ENTITY, "bears no licence of WordNet"),
        (LICENCE + ENTITY.replace(" 03 ", " 29 "), "is damaged"),
        (LICENCE + ENTITY.replace("003", "many"), "is damaged"),
        (LICENCE + ENTITY[:40], "is damaged"),
        (LICENCE + ENTITY.replace("~i 00002137", "~"), "is damaged"),
    ],
)
def test_damaged_files(tmp_path, text, says):
    (tmp_path / "data.noun").write_text(text)
    with pytest.raises(FileFormatError, match=says):
        data.load("wordnet", path=tmp_path)


def test_a_folder_without(tmp_path):
    with pytest.raises(FileFormatError, match=r"holds no data\.noun"):
        data.load("wordnet", path=tmp_path)
