"""What most tests of federations of prototypes run on."""

import pytest
from tests.prototypes.federation import feature_file


@pytest.fixture(scope="session")
def path(tmp_path_factory):
    """Embeddings of three sites, as apps/mpft reads them."""
    return feature_file(tmp_path_factory.mktemp("features") / "f.npz")
