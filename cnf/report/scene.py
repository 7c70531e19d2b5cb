"""The data of the interactive flow as the page carries them."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np
from matplotlib.colors import to_hex

from cnf.plotting.style import DENSITY
from cnf.report.animation import motion
from cnf.report.data import ReportData

SHADES = 16  # of a map


def scene(data: ReportData) -> str:
    """Particles, maps and colors, compressed.

    Raises:
        ValueError: for a flow whose particles overflow.
    """
    return compressed(as_json(motion(data) | {"light": shades(), "dark": shades()[::-1]}))


def as_json(moving: dict[str, Any]) -> str:
    """The data as JSON.

    Raises:
        ValueError: for numbers that are not finite, which no browser can draw.
    """
    try:
        return json.dumps(moving, allow_nan=False)
    except ValueError as failure:
        raise ValueError(
            "the flow carries its particles out of range, so it cannot be drawn; run `cnf check`"
        ) from failure


def shades() -> list[str]:
    """The colors of a map, from zero density to the peak."""
    return [to_hex(color) for color in DENSITY(np.linspace(0, 1, SHADES))]


def compressed(text: str) -> str:
    """Text compressed by gzip, in base64; the browser unpacks it."""
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()
