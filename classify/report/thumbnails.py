"""Thumbnails in the page as JPEG data URIs, or the reason why a photograph cannot be read."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from headstart.classify.report.parts import Thumbnail
from headstart.data.common.errors import StorageError
from headstart.data.examples.reading import Reader, why_unread
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.data.modalities.image.resizing import resize
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.folder import Folder

SIDE = 128  # pixels, at most
QUALITY = 80


@dataclass(frozen=True)
class _Fitting(Preprocessing):
    """Keeps the aspect ratio: shrinks large photographs, enlarges tiny ones by whole pixels."""

    def apply(self, image: Image.Image, fast: bool = False) -> np.ndarray:
        longest = max(image.size)
        if longest <= self.width // 2:
            factor = self.width // longest
            image = image.resize(
                (factor * image.width, factor * image.height), Image.Resampling.NEAREST
            )
        elif longest > self.width:
            width, height = (max(1, round(side * self.width / longest)) for side in image.size)
            image = resize(image, (width, height), Image.Resampling.LANCZOS, fast)
        return np.asarray(image.convert("RGB"))


class Thumbnails:
    """Makes thumbnails of the photographs in a folder.

    Parameters
    ----------
    folder
        The folder that the paths are relative to.
    """

    def __init__(self, folder: Folder) -> None:
        self._reader = Reader(folder)

    def of(self, id: str, path: str) -> Thumbnail:
        """The thumbnail of an example, with a reason instead of a picture if it cannot be read."""
        try:
            pixels = decode(self._reader.read(path), _Fitting(SIDE, SIDE))
        except DecodeError as error:
            return Thumbnail(id, reason=error.message)
        except OSError as error:
            return Thumbnail(id, reason=why_unread(error)[1])
        except StorageError as error:
            return Thumbnail(id, reason=error.message)
        buffer = BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
        encoded = base64.b64encode(buffer.getvalue()).decode()
        return Thumbnail(id, f"data:image/jpeg;base64,{encoded}")
