"""What the page shows of an example, as its modality makes it, or why there is nothing."""

from __future__ import annotations

import base64
from dataclasses import replace
from io import BytesIO

import numpy as np
from PIL import Image

from headstart.classify.report.parts import Thumbnail
from headstart.data.common.errors import StorageError
from headstart.data.examples.reading import Reader, why_unread
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import DecodeError, Modality
from headstart.data.storage.folder import Folder

SMALL, TINY = 96, 56  # pixels of the longer side: beside a larger picture, and on the map
QUALITY = 75  # as JPEG


class Thumbnails:
    """Makes thumbnails of the examples in a folder.

    Parameters
    ----------
    folder
        The folder that the paths are relative to.
    modality
        Of the examples.
    """

    def __init__(self, folder: Folder, modality: Modality = MODALITIES["image"]) -> None:
        self._reader, self._modality = Reader(folder), modality

    @property
    def noun(self) -> str:
        """What an example is called."""
        return self._modality.noun

    def of(self, id: str, path: str) -> Thumbnail:
        """The thumbnail of an example, with a reason instead of it if it cannot be read."""
        try:
            preview = self._modality.preview_at(path, self._reader.read(path))
        except DecodeError as error:
            return Thumbnail(id, reason=error.message)
        except OSError as error:
            return Thumbnail(id, reason=why_unread(error)[1])
        except StorageError as error:
            return Thumbnail(id, reason=error.message)
        if preview.media_type == "text/plain":
            return Thumbnail(id, text=preview.content.decode())
        sound = _uri("audio/mpeg", preview.sound) if preview.sound else ""
        return Thumbnail(id, _uri(preview.media_type, preview.content), sound=sound)

    def small(self, id: str, path: str, side: int = SMALL) -> Thumbnail:
        """A smaller one, without a player."""
        found = self.of(id, path)
        if not found.uri:
            return found
        image = Image.open(BytesIO(base64.b64decode(found.uri.partition(",")[2])))
        image.thumbnail((side, side))
        return replace(found, uri=_jpeg(image), sound="")

    def drawn(self, id: str, caption: str, pixels: np.ndarray) -> Thumbnail:
        """A picture of ours about an example, uint8 `[height, width, 3]`."""
        return Thumbnail(f"{id}: {caption}", _jpeg(Image.fromarray(pixels)), caption=caption)


def _jpeg(image: Image.Image) -> str:
    buffer = BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return _uri("image/jpeg", buffer.getvalue())


def _uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
