"""Classify photographs with an edge model: onnxruntime, numpy and Pillow are all it needs.

    python classify_photo.py edge.onnx photo.jpg [photo.jpg ...]

Prints a line for each photograph: its name, the class, and the probability. Copy this file into
your own program; it does not import headstart.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


class EdgeModel:
    """An edge model and what it says about itself."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        self.classes = json.loads(about["headstart.classes"])
        self.size = int(about["headstart.width"]), int(about["headstart.height"])
        self.crop = about["headstart.resize"] == "crop"
        self.filter = Image.Resampling[about["headstart.interpolation"].upper()]

    def read(self, path: str) -> np.ndarray:
        """A photograph, upright and of the model's size: uint8 [height, width, 3], RGB."""
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        if self.crop:
            return np.asarray(ImageOps.fit(image, self.size, self.filter))
        return np.asarray(image.resize(self.size, self.filter))

    def classify(self, path: str) -> tuple[str, np.ndarray]:
        """The class of a photograph, and the probability of every class."""
        image = self.read(path)[np.newaxis]
        labels, probabilities = self.session.run(["label", "probabilities"], {"image": image})
        return self.classes[labels[0]], probabilities[0]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python classify_photo.py edge.onnx photo.jpg [photo.jpg ...]")
    model = EdgeModel(sys.argv[1])
    for photo in sys.argv[2:]:
        name, probabilities = model.classify(photo)
        print(f"{photo}  {name}  {probabilities.max():.3f}")
