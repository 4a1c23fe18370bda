"""Gzip by several threads, read back by others."""

import gzip
import subprocess

import numpy as np
import pytest

from focalis.volume import compress
from focalis.volume.compress import gzip_file


@pytest.mark.parametrize("size", [0, 1, 1000, 4096, 4097, 50_000])
def test_python_and_gzip_read_the_same_bytes(tmp_path, monkeypatch, size):
    monkeypatch.setattr(compress, "CHUNK_BYTES", 4096)
    content = np.random.default_rng(0).integers(0, 4, size, dtype=np.uint8).tobytes()
    plain, packed = tmp_path / "a", tmp_path / "a.gz"
    plain.write_bytes(content)
    gzip_file(plain, packed)
    assert gzip.decompress(packed.read_bytes()) == content
    done = subprocess.run(["gzip", "-dc", str(packed)], capture_output=True, check=True)
    assert done.stdout == content
    assert packed.stat().st_size < max(size, 40)


def test_the_same_content_gives_the_same_file(tmp_path):
    plain = tmp_path / "a"
    plain.write_bytes(b"label" * 10_000)
    gzip_file(plain, tmp_path / "one.gz")
    gzip_file(plain, tmp_path / "two.gz")
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()
