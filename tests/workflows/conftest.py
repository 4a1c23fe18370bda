"""What tests of several workflows train on."""

import pytest

from focalis.dataset.phantoms import PhantomSettings, write_phantoms


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """A data set of six phantoms with a lesion each."""
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, 6, PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1), 0)
    return root
