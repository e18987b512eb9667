"""What a run folder says of the images that it was made with: classes, numbers, and a fingerprint (no torch)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dnad_ray.errors import RunFolderError, UserError, one_line
from dnad_ray.run_folder.layout import images_file
from dnad_ray.storage.checksums import parse_record
from dnad_ray.storage.digests import digest_of_data
from dnad_ray.storage.files import read_file, write_json
from dnad_ray.storage.places import Place, address
from search_spaces import json_reader

__all__ = ["ClassImages", "ImagesRecord", "changes", "read_images", "write_images"]

_LEARNT = ("train", "validation")
"""The parts that a search sees."""

_LONGEST_NAME = 1_000
_MOST_CLASSES = 100_000
_MOST_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class ClassImages:
    """The images of one class in one part of a dataset.

    Attributes:
        count: How many there are.
        names: Digest of the names of their files below the folder of the class; empty where they are no files.
        content: Digest of their bytes, in the order of the names; empty where they were not read.
    """

    count: int
    names: str = ""
    content: str = ""


@dataclass(frozen=True, kw_only=True)
class ImagesRecord:
    """The images of a run, as its folder keeps them.

    Attributes:
        name: Name of the dataset.
        classes: Names of the classes.
        image_size: Side of the images in pixels.
        channels: 1 (grey) or 3 (RGB).
        num_train: Images that weights and architecture learn from.
        num_validation: Images held out for the proxy accuracy.
        num_test: Images of the test part; 0 where there is none.
        parts: The dataset's own parts before any image is held out, ``train`` and perhaps ``validation`` and ``test``;
            each has an entry per class. A search does not read test images, so their content is not known.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    channels: int
    num_train: int
    num_validation: int
    num_test: int
    parts: Mapping[str, tuple[ClassImages, ...]]

    @property
    def digest(self) -> str:
        """Fingerprint of the classes and of the images that a search sees, whatever the folder and the image size."""
        learnt = {part: [asdict(entry) for entry in self.parts[part]] for part in _LEARNT if part in self.parts}
        return digest_of_data({"classes": list(self.classes), "parts": learnt})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ImagesRecord:
        """Build a record from :meth:`to_dict`; ignores unknown keys.

        Raises:
            KeyError: If a key is missing.
            TypeError: If a value is of another type, or parts and classes do not fit each other.
        """
        numbers = {key: data[key] for key in ("image_size", "channels", "num_train", "num_validation", "num_test")}
        for key, value in numbers.items():
            if not _is_number(value):
                raise TypeError(f"{key} is {value!r}, not a number")
        classes, parts = data["classes"], data["parts"]
        if not (isinstance(classes, list) and len(classes) <= _MOST_CLASSES and all(map(_is_text, classes))):
            raise TypeError("classes is not a list of names")
        if not _is_text(data["name"]) or not isinstance(parts, dict) or not parts.keys() <= {*_LEARNT, "test"}:
            raise TypeError("name or parts are not those of a dataset")
        entries = {part: tuple(map(_class_images, found)) for part, found in parts.items()}
        if any(len(found) != len(classes) for found in entries.values()):
            raise TypeError("a part has not one entry per class")
        return cls(name=data["name"], classes=tuple(classes), parts=entries, **numbers)


def write_images(folder: Place, record: ImagesRecord) -> None:
    """Write the record of the images into a run folder."""
    write_json(images_file(folder), record.to_dict())


def read_images(folder: Place) -> ImagesRecord | None:
    """Return the record of the images of a run; None for a run of a version that did not keep one.

    Raises:
        RunFolderError: If the file is there and is no such record.
    """
    file = images_file(folder)
    try:
        data = parse_record(read_file(file, json_reader.MAX_BYTES), file.name)
        return ImagesRecord.from_dict(data if isinstance(data, dict) else {})
    except FileNotFoundError:
        return None
    except (OSError, UserError, KeyError, TypeError) as error:
        given = f"{address(file)} ({one_line(error)[:300]})"
        raise RunFolderError("record of the images", given, "the file that the run wrote") from error


def changes(before: ImagesRecord, now: ImagesRecord) -> str:
    """Return what changed between the images that a search sees, in words; empty where they are the same.

    Names and content are compared where both records know them; folder and image size are not.
    """
    if before.classes != now.classes:
        added = sorted({*now.classes} - {*before.classes})
        gone = sorted({*before.classes} - {*now.classes})
        words = [f"new classes {_some(added)}"] * bool(added) + [f"classes {_some(gone)} are gone"] * bool(gone)
        return ", ".join(words) or "the classes have another order"
    found = []
    for part in _LEARNT:
        ours, theirs = before.parts.get(part), now.parts.get(part)
        if ours is None or theirs is None:
            found += [f"the {part} part is {'new' if ours is None else 'gone'}"] if ours is not theirs else []
            continue
        for name, then, this in zip(before.classes, ours, theirs, strict=True):
            change = _change(then, this)
            found += [f"{part} images of class {name!r}: {change}"] if change else []
    more = len(found) - _MOST_NAMED
    return "; ".join([*found[:_MOST_NAMED], *([f"and {more} more such changes"] if more > 0 else [])])


def _change(then: ClassImages, this: ClassImages) -> str:
    if then.count != this.count:
        return f"{this.count:,}, were {then.count:,}"
    same_names = not (then.names and this.names) or then.names == this.names
    same_content = not (then.content and this.content) or then.content == this.content
    if same_names and same_content:
        return ""
    return "other names" if same_content else "other content" if same_names else "other files"


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (
        f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    )


def _class_images(data: Any) -> ClassImages:
    entry = ClassImages(count=data["count"], names=data["names"], content=data["content"])
    if not (_is_number(entry.count) and _is_text(entry.names) and _is_text(entry.content)):
        raise TypeError(f"{data!r} is no entry of a class"[:300])
    return entry


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAME
