"""An embedding computed by the original network and numpy, which the graph is compared with.

Nothing here is shared with what writes the graph, but the recipe: where the channels of a layer are
is the network's own word (`Layer.layout`), while the graph goes by its operators.
"""

from __future__ import annotations

import numpy as np

from headstart.export.backbone.embedding import Recipe
from headstart.export.networks.network import FIRST, TOKENS, Layer, Original

POWER, FLOOR = 3, 1e-6  # of the generalized mean, Radenovic et al., 2018 (arXiv:1711.02512)


def embed(original: Original, recipe: Recipe, images: np.ndarray) -> np.ndarray:
    """The embedding computed by the original network and numpy, before the signed square root."""
    return embed_scaled(original, recipe, original.preprocess(images))


def embed_scaled(original: Original, recipe: Recipe, pixels: np.ndarray) -> np.ndarray:
    """The same of a network's input, `[batch, height, width, 3]`."""
    views = [pixels]
    if recipe.views != "none":
        views.append(pixels[:, :, ::-1])
    if recipe.views == "flips":
        views += [pixels[:, ::-1], np.rot90(pixels, axes=(1, 2))]
    answers = []
    for view in views:
        features = original.run(np.ascontiguousarray(view), recipe.layers)
        pieces = [
            pool_array(np.asarray(array, np.float64), part.layer, pool)
            for part, array in zip(recipe.parts, features, strict=True)
            for pool in part.pools
        ]
        answers.append(np.concatenate(pieces, axis=1))
    return np.mean(answers, axis=0)


def pool_array(array: np.ndarray, layer: Layer, pool: str) -> np.ndarray:
    """One pool of a layer's output in numpy: `[batch, ...]` to `[batch, channels]`."""
    if pool == "none":
        return array
    if pool == "token":
        return array[:, 0]
    if layer.layout == FIRST:
        array = np.moveaxis(array, 1, -1)
    if layer.layout == TOKENS:
        array = array[:, layer.prefix :]
    if pool == "flatten":
        return array.reshape(len(array), -1)
    places = array.reshape(len(array), -1, array.shape[-1])
    if pool == "gem":
        high = np.maximum(places, FLOOR) ** POWER
        return high.mean(axis=1) ** (1 / POWER)
    if pool == "max":
        return np.asarray(places.max(axis=1))
    return np.asarray(places.mean(axis=1) if pool == "avg" else places.std(axis=1))
