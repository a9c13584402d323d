"""Small pictures: contact sheets, and PNG files inside a page."""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from ancestral.data.images import Images


def sheet(images: Images, columns: int | None = None, side: int = 64) -> Image:
    """All images on one sheet.

    Args:
        images: n > 0 images of H x W pixels.
        columns: images per row; by default about as many as rows.
        side: small images are enlarged by whole factors to about this many pixels.
    """
    from PIL import Image as Pictures

    pictures = [images.picture(i) for i in range(len(images))]
    columns = columns or math.ceil(math.sqrt(len(pictures)))
    width, height = pictures[0].size
    factor = max(1, round(side / max(width, height)))
    gap = max(2, factor)
    rows = math.ceil(len(pictures) / columns)
    mode = "RGBA" if pictures[0].mode in ("LA", "RGBA") else "RGB"
    size = (columns * (width * factor + gap) + gap, rows * (height * factor + gap) + gap)
    page = Pictures.new(mode, size, "white")
    for i, picture in enumerate(pictures):
        row, column = divmod(i, columns)
        place = (gap + column * (width * factor + gap), gap + row * (height * factor + gap))
        large = picture.resize((width * factor, height * factor), Pictures.Resampling.NEAREST)
        page.paste(large.convert(mode), place)
    return page


def png(pixels: np.ndarray, levels: int = 256, invert: bool = False, **options: Any) -> bytes:
    """A PNG file of grey or RGB values below ``levels``, uint8 ``[H, W]`` or ``[H, W, 3]``.

    Args:
        invert: show 0 as white, as ink on paper.
        options: of Pillow's PNG writer.
    """
    from PIL import Image as Pictures

    stretched = np.round(pixels.astype(np.float64) * (255 / (levels - 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Pictures.fromarray(255 - stretched if invert else stretched).save(buffer, format="PNG", **options)
    return buffer.getvalue()


def inline(data: bytes) -> str:
    """A PNG file as the address of an image inside a page."""
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
