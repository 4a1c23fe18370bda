"""What tests of several workflows train on, and what they leave to the tests of the floors below."""

import io

import pytest
from matplotlib.figure import Figure
from PIL import Image

from focalis.dataset.phantoms import PhantomSettings, write_phantoms
from focalis.planning import make


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """A data set of six phantoms with a lesion each."""
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root, 6, PhantomSettings(shape_zyx=(20, 24, 28), foreground_share=0.01, lesions=1), 0)
    return root


@pytest.fixture(scope="module", autouse=True)
def _what_is_tested_below_takes_no_time():
    """Charts are white dots, and every plan fits the memory: to draw and to count takes most of a small training."""
    dot = io.BytesIO()
    Image.new("RGB", (1, 1), "white").save(dot, "png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda _figure, file, **_: file.write(dot.getvalue()))
        patch.setattr(make, "training_bytes", lambda _plan: 10**9)
        yield
