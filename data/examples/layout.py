"""What the folders in a name say of a file: its label and its split."""

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
AMBIGUOUS = ("valid", "dev")  # classes as well, such as valid and invalid coins
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information")


def is_of_the_system(name: str) -> bool:
    """Whether a file is an operating system's own, by a folder in its name."""
    return any(folder in SYSTEM_FOLDERS for folder in name.split("/")[:-1])


def labels_and_splits(
    path: object, names: Sequence[str]
) -> tuple[list[str | None], list[str | None]]:
    """Label and split of each file, none where its name does not say it.

    The first folder is the label, or the split if the first folders are named for splits; then the
    second is the label. A folder that holds nothing but two or more folders of these files is
    passed over, so that files have the same labels one level deeper, or in an archive of their
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
    folders = [name.split("/")[:-1] for name in names]
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
                "Put the class folders into the split folders, or describe the files by a "
                "manifest.",
            )
        splits = []
    start = 1 if splits else 0
    return (
        [each[start] if len(each) > start else None for each in folders],
        [SPLIT_NAMES[each[0].lower()] if splits and each else None for each in folders],
    )


def _shared(folders: list[list[str]]) -> int:
    """How many leading folders are passed over: all files are in them, and then in several."""
    depth = 0
    while folders and all(len(each) > depth + 1 for each in folders):
        if len({each[depth] for each in folders}) > 1:
            return depth
        depth += 1
    several = folders and len({each[depth] for each in folders if len(each) > depth}) > 1
    return depth if several and all(len(each) > depth for each in folders) else 0
