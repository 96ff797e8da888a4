"""A small network without pretrained weights, to be trained from the first layer on."""

from __future__ import annotations

from typing import Any

from headstart.data.common.errors import BackboneError

NAME, SIZE = "small_cnn", 64
CHANNELS = (32, 64, 128, 128)
SMALLEST = 2 ** len(CHANNELS)


def build_small_cnn(keras: Any, size: int) -> Any:
    """Four convolutions of 3x3 with ReLU, a maximum over 2x2 after each: a Keras model.

    With the mean over the picture and the head it has ten layers, as the networks of introductory
    courses do. It scales pixels itself.

    Raises
    ------
    BackboneError
        If a picture of that size would have no pixel left.
    """
    if size < SMALLEST:
        raise BackboneError(
            f"{NAME} cannot be built for {size} pixels", f"Give --size {SMALLEST} or more."
        )
    start = keras.Input((size, size, 3), name="image")
    values = keras.layers.Rescaling(1 / 255, name="rescaling")(start)
    for number, channels in enumerate(CHANNELS, 1):
        values = keras.layers.Conv2D(
            *(channels, 3),
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(values)
        values = keras.layers.MaxPooling2D(name=f"pool{number}")(values)
    return keras.Model(start, values, name=NAME)
