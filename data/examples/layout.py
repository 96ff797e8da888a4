"""The label and the split of a file, from the folders in its name."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.data.common.errors import SourceError

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
AMBIGUOUS = ("valid", "dev")  # may also be classes, such as valid and invalid coins
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")


def is_of_the_system(name: str) -> bool:
    """Whether a file belongs to the operating system, by a folder in its name."""
    return any(folder in SYSTEM_FOLDERS for folder in name.split("/")[:-1])


def labels_and_splits(
    path: object, names: Sequence[str]
) -> tuple[list[str | None], list[str | None]]:
    """Label and split of each file, None if its name has none.

    The first folder is the label, or the split if the first folders are named for splits; then the
    second is the label. A folder that contains only two or more folders of these files is
    skipped, so that labels are the same if everything is one level deeper, or in an archive of the
    folder.

    Parameters
    ----------
    names
        In POSIX form, relative to the source.

    Raises
    ------
    SourceError
        If folders of splits and of classes are mixed.
    """
    of_files = [name.rpartition("/")[0] for name in names]
    distinct = list(dict.fromkeys(of_files))  # a folder of many files is looked at once
    folders = [each.split("/") if each else [] for each in distinct]
    depth = _shared(folders)
    folders = [each[depth:] for each in folders]
    first = sorted({each[0] for each in folders if each})
    splits = [name for name in first if name.lower() in SPLIT_NAMES]
    if len(splits) < len(first):
        certain = [name for name in splits if name.lower() not in AMBIGUOUS]
        if certain:
            others = [name for name in first if name not in splits]
            raise SourceError(
                f"{path} mixes folders of splits ({', '.join(splits)}) "
                f"with folders of classes ({', '.join(others[:5])})",
                "Put the class folders into the split folders, or describe the files in a "
                "manifest.",
            )
        splits = []
    start = 1 if splits else 0
    labels = {
        name: each[start] if len(each) > start else None
        for name, each in zip(distinct, folders, strict=True)
    }
    parts = {
        name: SPLIT_NAMES[each[0].lower()] if splits and each else None
        for name, each in zip(distinct, folders, strict=True)
    }
    return [labels[name] for name in of_files], [parts[name] for name in of_files]


def _shared(folders: list[list[str]]) -> int:
    """How many leading folders to skip: all files are in them, below two or more folders."""
    depth = 0
    while folders and all(len(each) > depth + 1 for each in folders):
        if len({each[depth] for each in folders}) > 1:
            return depth
        depth += 1
    several = folders and len({each[depth] for each in folders if len(each) > depth}) > 1
    return depth if several and all(len(each) > depth for each in folders) else 0
