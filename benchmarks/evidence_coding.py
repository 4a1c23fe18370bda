"""Small pictures as text inside a result file."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np


def packed(values: np.ndarray) -> dict[str, Any]:
    """Values from 0 to 1, (y, x), as text: in steps of 1/255, compressed."""
    rounded = np.rint(255 * values.astype(np.float32)).astype(np.uint8)
    return {
        "shape": list(rounded.shape),
        "bytes": base64.b64encode(zlib.compress(rounded.tobytes(), 9)).decode(),
    }


def unpacked(content: Mapping[str, Any]) -> np.ndarray:
    """What `packed` packed, float32 from 0 to 1."""
    raw = zlib.decompress(base64.b64decode(content["bytes"]))
    return np.frombuffer(raw, np.uint8).reshape(content["shape"]).astype(np.float32) / 255
