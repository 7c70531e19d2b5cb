"""Small files for pictures of many small panels."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from cnf.files import atomic_path

COLORS = 192


def shrink(picture: Path) -> None:
    """Two thirds of the size and a palette, where full color would take megabytes."""
    with Image.open(picture) as image, atomic_path(picture) as temporary:
        small = image.convert("RGB").resize((image.width * 2 // 3, image.height * 2 // 3))
        small.quantize(COLORS).save(temporary, format="png")
