"""From a pile of labelled files to a classifier that runs anywhere.

>>> import headstart as hs
>>> features = hs.extract("photos/")
>>> model = hs.train(features)
>>> model.scores
>>> model.predict("new_photos/")
>>> model.export("edge.onnx")

Nothing heavy is imported before a function is called. The rooms are `headstart.data`,
`headstart.extract`, `headstart.classify`, `headstart.export` and `headstart.cluster`; in a clone
they are links to the folders of these names. `headstart.extract` is both: the room, and the
function `headstart.features.extract`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.data.common.errors import HeadstartError
    from headstart.features import Features, extract
    from headstart.models import EdgeModel, Model, fit, load, train
    from headstart.results import Confusion, Predictions, Scores
else:
    from headstart import extract

__all__ = [
    "Confusion",
    "EdgeModel",
    "Features",
    "HeadstartError",
    "Model",
    "Predictions",
    "Scores",
    "extract",
    "fit",
    "load",
    "train",
]

_PLACES = {
    "Features": "features",
    **dict.fromkeys(("EdgeModel", "Model", "fit", "load", "train"), "models"),
    **dict.fromkeys(("Confusion", "Predictions", "Scores"), "results"),
    "HeadstartError": "data.common.errors",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("headstart")
    if name not in _PLACES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}")
    found = getattr(import_module(f"headstart.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Extract(ModuleType):
    """The room `headstart.extract`, which can be called."""

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        from headstart.features import extract

        return extract(*arguments, **named)

    @property
    def __signature__(self) -> Any:
        import inspect

        from headstart.features import extract

        return inspect.signature(extract)


sys.modules[f"{__name__}.extract"].__class__ = _Extract
