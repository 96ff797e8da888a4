"""Classify photographs with an edge model: needs only onnxruntime, numpy and Pillow.

    pip install onnxruntime numpy pillow
    python classify_photo.py edge.onnx photo.jpg [photo.jpg ...]

Prints a line for each photograph: its name, the class, and the probability. Copy this file into
your own program; it does not import headstart.
"""

import json
import math
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class EdgeModel:
    """An edge model and its metadata."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        if about.get("headstart.kind") != "classifier":
            raise ValueError(f"{path} is not an edge model: python -m export classifier writes one")
        self.classes = json.loads(about["headstart.classes"])
        self.any_size = not isinstance(self.session.get_inputs()[0].shape[1], int)
        self.size = int(about["headstart.width"]), int(about["headstart.height"])
        self.crop = about["headstart.resize"] == "crop"
        self.fraction = float(about.get("headstart.crop_fraction", 0))  # 0: none
        self.offset = {"floor": math.floor}.get(about.get("headstart.crop_offset", ""), round)
        self.filter = Image.Resampling[about["headstart.interpolation"].upper()]

    def read(self, path: str) -> np.ndarray:
        """A photograph, upright and in the size of the model's input: uint8 [height, width, 3]."""
        with Image.open(path) as file:
            if not self.any_size:  # a large JPEG is decoded at a reduced size, as in training
                sideways = file.getexif().get(0x0112, 1) in (5, 6, 7, 8)
                enough = self.resized()
                file.draft(file.mode, enough[::-1] if sideways else enough)
            image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I"):  # 16 bits of grey
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("RGB")
        if self.any_size:
            return np.asarray(image)
        if self.fraction:
            return np.asarray(image.resize(self.size, self.filter, self.box(image.size)))
        if self.crop:
            return np.asarray(ImageOps.fit(image, self.size, self.filter))
        return np.asarray(image.resize(self.size, self.filter))

    def resized(self) -> tuple[int, int]:
        """Width and height before the centre is cut out, or what they must cover."""
        part = self.fraction or 1
        return round(self.size[0] / part), round(self.size[1] / part)

    def box(self, whole: tuple[int, int]) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of what remains of a photograph of this width and height."""
        (width, height), (new_width, new_height) = whole, self.resized()
        if self.crop:  # in its own proportions
            across, down = new_height * width / height, new_width * height / width
            new_width, new_height = max(new_width, int(across)), max(new_height, int(down))
        left = self.offset((new_width - self.size[0]) / 2)
        top = self.offset((new_height - self.size[1]) / 2)
        right, bottom = left + self.size[0], top + self.size[1]
        x, y = width / new_width, height / new_height
        return left * x, top * y, min(right * x, width), min(bottom * y, height)

    def classify(self, path: str) -> tuple[str, np.ndarray]:
        """The class of a photograph ("unknown" if unsure), and the probability of every class."""
        image = self.read(path)[np.newaxis]
        labels, probabilities = self.session.run(["label", "probabilities"], {"image": image})
        label = int(labels[0])
        return "unknown" if label < 0 else self.classes[label], probabilities[0]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python classify_photo.py edge.onnx photo.jpg [photo.jpg ...]")
    try:
        model = EdgeModel(sys.argv[1])
    except Exception as error:
        sys.exit(f"{sys.argv[1]} cannot be used: {error}")
    failed = 0
    for photo in sys.argv[2:]:
        try:
            name, probabilities = model.classify(photo)
        except OSError as error:
            print(f"{photo} cannot be read: {error}", file=sys.stderr)
            failed += 1
        else:
            print(f"{photo}  {name}  {probabilities.max():.3f}")
    sys.exit(1 if failed else 0)
