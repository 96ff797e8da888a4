"""The kinds of head, their parameters, and how each is built as a scikit-learn estimator."""

from __future__ import annotations

import difflib
import importlib
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sklearn.base import BaseEstimator, is_classifier
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from headstart.classify.heads.keras_head import GRID, KerasHead
from headstart.data.common.errors import Checklist, InputError
from headstart.data.contracts.calibration import DECISION, PROBABILITY

AUTO = "auto"
WORDS = {"gamma": "scale", "shrinkage": "auto"}  # accepted instead of a number
SHARES = ("dropout", "shrinkage")  # from 0 to 1
Parameters = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Kind:
    """A kind of head.

    Parameters
    ----------
    build
        Makes an untrained estimator from parameters, class weight and seed.
    defaults
        All its parameters, with their default values.
    search
        The values that a search tries, for each parameter that it varies.
    weights
        Whether it supports class weights.
    cheap
        Whether its cost is linear in the number of examples, so that a search may try it on many.
    """

    build: Callable[[Parameters, str | None, int], BaseEstimator]
    defaults: Parameters
    search: Mapping[str, list[Any]]
    weights: bool = True
    cheap: bool = True


def _logistic(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    most = int(given["max_iter"])
    return make_pipeline(
        StandardScaler(), LogisticRegression(C=given["c"], max_iter=most, class_weight=weight)
    )


def _linear_svm(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    svm = LinearSVC(C=given["c"], class_weight=weight, random_state=seed, max_iter=5000)
    return make_pipeline(StandardScaler(), svm)


def _rbf_svm(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    # One-vs-rest: the usual one-vs-one ends in a vote, whose scores are not continuous.
    svm = SVC(C=given["c"], gamma=given["gamma"], class_weight=weight)
    return make_pipeline(StandardScaler(), OneVsRestClassifier(svm))


def _knn(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    return make_pipeline(
        StandardScaler(), KNeighborsClassifier(int(given["neighbours"]), algorithm="brute")
    )


def _ridge(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    return make_pipeline(
        StandardScaler(), RidgeClassifier(alpha=given["alpha"], class_weight=weight)
    )


def _lda(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=given["shrinkage"])
    return make_pipeline(StandardScaler(), lda)


def _boosting(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    # No scaler: scaling changes only the last bit of a tree's thresholds.
    return make_pipeline(
        HistGradientBoostingClassifier(
            learning_rate=given["learning_rate"],
            max_iter=int(given["max_iter"]),
            max_leaf_nodes=int(given["leaves"]),
            class_weight=weight,
            random_state=seed,
            early_stopping=False,  # it would hold out examples without regard to groups
        )
    )


def _keras(given: Parameters, weight: str | None, seed: int) -> BaseEstimator:
    return KerasHead(**dict[str, Any](given), class_weight=weight, random_state=seed)


HEADS: Mapping[str, Kind] = MappingProxyType(
    {
        "logistic": Kind(_logistic, {"c": 0.01, "max_iter": 1000}, {"c": [0.001, 0.01, 0.1]}),
        "linear-svm": Kind(_linear_svm, {"c": 0.0003}, {"c": [0.00003, 0.0003, 0.003]}),
        "rbf-svm": Kind(
            _rbf_svm,
            {"c": 5.0, "gamma": "scale"},
            {"c": [1.0, 5.0, 20.0]},
            cheap=False,
        ),
        "knn": Kind(
            _knn, {"neighbours": 10}, {"neighbours": [5, 10, 20]}, weights=False, cheap=False
        ),
        "ridge": Kind(_ridge, {"alpha": 1000.0}, {"alpha": [100.0, 1000.0, 10000.0]}),
        "lda": Kind(_lda, {"shrinkage": "auto"}, {"shrinkage": ["auto", 0.3]}, weights=False),
        "boosting": Kind(
            _boosting,
            {"learning_rate": 0.1, "max_iter": 100, "leaves": 15},
            {"learning_rate": [0.1]},
            cheap=False,
        ),
        "keras": Kind(
            _keras,
            {
                "hidden": 256,
                "dropout": 0.25,
                "learning_rate": 0.001,
                "epochs": 20,
                "batch_size": 32,
                "early_stop": 5,
            },
            GRID,
            cheap=False,
        ),
    }
)
KNOWN = (*HEADS, AUTO)


@dataclass(frozen=True)
class HeadOptions:
    """Which head, and its parameters.

    Parameters
    ----------
    name
        One of `HEADS`; `auto` for the best found by a search; or `package.module:factory`, a
        function that takes the parameters by name and returns a scikit-learn classifier.
    parameters
        Those that differ from the defaults. Embeddings have about as many dimensions as a small
        data set has examples, so weaker regularization than the default soon overfits.
    class_weight
        `balanced`: rare classes count as much as frequent ones. None: every example has the same
        weight.
    """

    name: str = "logistic"
    parameters: Parameters = field(default_factory=dict)
    class_weight: str | None = None

    def __post_init__(self) -> None:
        checks = Checklist()
        with checks.item():
            self._check_name()
        with checks.item():
            if self.class_weight not in (None, "balanced"):
                raise InputError(
                    f"--class-weight {self.class_weight} is not possible", "Give balanced, or none."
                )
            if self.class_weight and self.is_custom:
                raise InputError(
                    "--class-weight is not passed to a custom head",
                    "Set it in the factory, and leave --class-weight out.",
                )
            kind = HEADS.get(self.name)
            if self.class_weight and kind and not kind.weights:
                able = ", ".join(name for name, other in HEADS.items() if other.weights)
                raise InputError(
                    f"the head {self.name} does not support class weights",
                    f"Leave --class-weight out, or choose one of {able}.",
                )
        for name in self.parameters:
            with checks.item():
                self._check_parameter(name)
        checks.finish()

    def _check_name(self) -> None:
        if self.name in KNOWN or self.is_custom:
            return
        near = difflib.get_close_matches(self.name, KNOWN, 1, 0.5)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise InputError(
            f"unknown head {self.name!r}",
            f"{hint}Choose from {', '.join(KNOWN)}, or package.module:factory for a custom head.",
        )

    def _check_parameter(self, name: str) -> None:
        if self.is_custom:
            return  # checked by calling the factory
        if self.name == AUTO:
            raise InputError(
                f"--param {name} is not possible with --head auto: the search chooses",
                "Name a head, or leave --param out.",
            )
        kind = HEADS.get(self.name)
        if kind is None:
            return
        if name not in kind.defaults:
            raise InputError(
                f"the head {self.name} has no parameter {name!r}",
                f"It has {', '.join(kind.defaults)}.",
            )
        default, value = kind.defaults[name], self.parameters[name]
        if value == WORDS.get(name):
            return
        whole, share = isinstance(default, int), name in SHARES
        fits = isinstance(value, (int, float)) and math.isfinite(value)
        if fits:
            fits = 0 <= value <= 1 if share else value > 0  # type: ignore[operator]
        if not fits or (whole and value != int(value)):
            number = "a whole number above 0" if whole else "a number above 0"
            word = f", or {WORDS[name]}" if name in WORDS else ""
            raise InputError(
                f"--param {name}={value} is not possible",
                f"Give {'a number from 0 to 1' if share else number}{word}.",
            )

    @property
    def is_custom(self) -> bool:
        """Whether it comes from a factory of the user's."""
        return ":" in self.name

    @property
    def all_parameters(self) -> dict[str, Any]:
        """The defaults, updated with the given parameters."""
        kind = HEADS.get(self.name)
        return {**(kind.defaults if kind else {}), **self.parameters}

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, the defaults filled in."""
        return asdict(self) | {"parameters": self.all_parameters}


def make_head(options: HeadOptions, seed: int = 0) -> BaseEstimator:
    """An untrained scikit-learn estimator for embeddings.

    Raises
    ------
    InputError
        If it is a custom head, and its factory fails.
    """
    if options.is_custom:
        return _custom_head(options)
    kind = HEADS[options.name]
    return kind.build(options.all_parameters, options.class_weight, seed)


def score_method(options: HeadOptions, estimator: BaseEstimator) -> str:
    """The estimator's method that returns the scores."""
    if options.is_custom:
        return PROBABILITY if hasattr(estimator, "predict_proba") else DECISION
    return PROBABILITY if options.name == "knn" else DECISION


def _custom_head(options: HeadOptions) -> BaseEstimator:
    module, _, name = options.name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does, also for the installed command
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"--head {options.name}: {error}",
            "Give package.module:factory; Python must find the module from this folder.",
        ) from None
    try:
        head = factory(**options.parameters)
    except TypeError as error:
        raise InputError(
            f"--head {options.name} cannot be called with these parameters: {error}",
            "The factory is called with the parameters of --param, by name.",
        ) from None
    if not (isinstance(head, BaseEstimator) and is_classifier(head)):
        raise InputError(
            f"--head {options.name} returned {type(head).__name__}, which is not a classifier",
            "Return an untrained scikit-learn classifier.",
        )
    if not (hasattr(head, "predict_proba") or hasattr(head, "decision_function")):
        raise InputError(
            f"--head {options.name} returned {type(head).__name__}, which has neither "
            "predict_proba nor decision_function",
            "Probabilities are computed from one of the two.",
        )
    return head


def variants(options: HeadOptions) -> list[HeadOptions]:
    """The variants of a head that a search tries: every combination of its values."""
    kind = HEADS[options.name]
    return [
        HeadOptions(
            options.name,
            dict(options.parameters) | dict(zip(kind.search, values, strict=True)),
            options.class_weight,
        )
        for values in product(*kind.search.values())
    ]


def parse_parameters(texts: list[str]) -> dict[str, float | int | str]:
    """Parse `NAME=VALUE` of the command line; numbers are converted.

    Raises
    ------
    InputError
        If a text does not have this form.
    """
    checks, found = Checklist(), {}
    for text in texts:
        with checks.item():
            name, equals, value = text.partition("=")
            if not (name and equals and value):
                raise InputError(
                    f"--param {text} is not possible", "Give NAME=VALUE, such as c=0.1."
                )
            found[name.strip()] = _number(value.strip())
    checks.finish()
    return found


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
