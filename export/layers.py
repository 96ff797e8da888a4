"""From a network to an embedding: named layers, averaged over the picture, side by side."""

from __future__ import annotations

import difflib
from typing import Any

from data.errors import BackboneError


def embedding_of(keras: Any, base: Any, name: str, layers: tuple[str, ...]) -> Any:
    """A model with the input of `base` whose output `[batch, dim]` is made of the named layers.

    Layers with height and width are averaged over both.

    Raises
    ------
    BackboneError
        If a layer does not exist, or has neither shape `[batch, channels]` nor
        `[batch, height, width, channels]`.
    """
    known = [known.name for known in base.layers]
    parts = []
    for layer in layers:
        if layer not in known:
            near = difflib.get_close_matches(layer, known, 3, 0.4)
            raise BackboneError(
                f"{name} has no layer {layer!r}",
                f"Near are {', '.join(near)}." if near else f"It has {', '.join(known)}.",
            )
        output = base.get_layer(layer).output
        if len(output.shape) == 4:
            output = keras.layers.GlobalAveragePooling2D(name=f"{layer}_avg")(output)
        elif len(output.shape) != 2:
            raise BackboneError(
                f"layer {layer!r} of {name} has the shape {tuple(output.shape)}",
                "Choose one with height, width and channels, or with channels only.",
            )
        parts.append(output)
    embedding = parts[0] if len(parts) == 1 else keras.layers.Concatenate(name="concat")(parts)
    return keras.Model(base.inputs, embedding, name=name)
