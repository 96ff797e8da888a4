"""The split of another model, taken over: the same examples train and test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.common.errors import InputError
from headstart.data.contracts.model import Model
from headstart.data.contracts.tuned import TUNED, Tuned


def split_of(data: Labelled, folder: str | Path) -> Split:
    """Training and test examples as in a model folder or tuned network, by the files' hashes.

    Examples that it does not have are neither trained on nor tested.

    Raises
    ------
    InputError
        If it is neither, or has no training or no test example in common with `data`.
    """
    known = _examples(folder)
    known = known.filter(pc.is_valid(known["split"]))
    place = pc.index_in(
        data.examples["content"].combine_chunks(), value_set=known["content"].combine_chunks()
    )
    splits = known["split"].combine_chunks().take(place)
    train, test = (
        np.flatnonzero(pc.fill_null(pc.equal(splits, name), False).to_numpy(zero_copy_only=False))
        for name in ("train", "test")
    )
    if not len(train) or not len(test):
        raise InputError(
            f"--split-of {folder}: {'no training' if not len(train) else 'no test'} example of it "
            "is in the features",
            "Name a model of the same examples.",
        )
    return Split(train, test, f"as in {folder}")


def _examples(folder: str | Path) -> pa.Table:
    if Path(folder, TUNED).is_file():
        return Tuned.open(folder).examples()
    return Model.open(folder).examples()
