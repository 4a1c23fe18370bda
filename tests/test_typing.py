"""The package's types reach those who import it (`py.typed`)."""

import subprocess
import sys

import pytest

USER = """
from pathlib import Path
import focalis

result = focalis.fit(Path("data"), Path("run"), minutes=1)
reveal_type(result.model)
focalis.predict(5, Path("masks"))
"""


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_a_type_checker_sees_the_types_from_outside(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "user.py").write_text(USER)
    found = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), "user.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    ).stdout
    assert 'Revealed type is "pathlib.Path' in found
    assert "user.py:7: error" in found
    assert "import-untyped" not in found
