"""The record of the images in a run folder: what it says, what changed, and files that are no such record."""

from __future__ import annotations

import dataclasses
import json

import pytest

from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder.images import ClassImages, ImagesRecord, changes, read_images
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.writing import create_run

CAT, DOG = ClassImages(count=5, names="a", content="b"), ClassImages(count=1200, names="c", content="d")
RECORD = ImagesRecord(
    name="imagefolder",
    classes=("cat", "dog"),
    image_size=16,
    channels=1,
    num_train=1000,
    num_validation=205,
    num_test=7,
    parts={"train": (CAT, DOG), "test": (ClassImages(count=3, names="e"), ClassImages(count=4, names="f"))},
)


def with_train(*entries, **others):
    return dataclasses.replace(RECORD, parts={**RECORD.parts, "train": entries}, **others)


def test_record_comes_back_from_a_run_folder(tmp_path):
    folder = create_run(tmp_path / "demo", {"seed": 0}, "0.1", RECORD)
    assert read_run(folder).images == read_images(folder) == RECORD
    without = create_run(tmp_path / "old", {"seed": 0}, "0.1")
    assert read_run(without).images is None
    assert read_run(without).problems == ()


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (RECORD, ""),
        (dataclasses.replace(RECORD, image_size=32, channels=3, num_train=1, num_test=0), ""),  # the same files
        (dataclasses.replace(RECORD, parts={"train": (CAT, DOG)}), ""),  # a search does not see test images
        (with_train(CAT, dataclasses.replace(DOG, content="")), ""),  # not known to one of them
        (with_train(CAT, dataclasses.replace(DOG, count=1201)), "train images of class 'dog': 1,201, were 1,200"),
        (with_train(CAT, dataclasses.replace(DOG, names="x")), "train images of class 'dog': other names"),
        (with_train(dataclasses.replace(CAT, content="x"), DOG), "train images of class 'cat': other content"),
        (
            with_train(dataclasses.replace(CAT, content="x", names="y"), dataclasses.replace(DOG, count=0)),
            "train images of class 'cat': other files; train images of class 'dog': 0, were 1,200",
        ),
        (with_train(CAT, DOG, classes=("cat", "hog")), "new classes hog, classes dog are gone"),
        (with_train(DOG, CAT, classes=("dog", "cat")), "the classes have another order"),
        (
            dataclasses.replace(RECORD, parts={**RECORD.parts, "validation": (CAT, DOG)}),
            "the validation part is new",
        ),
    ],
)
def test_changes_in_words(now, words):
    assert changes(RECORD, now) == words
    assert (now.digest == RECORD.digest) == (words == "" and "" not in {entry.content for entry in now.parts["train"]})


def test_changes_of_many_classes_are_counted():
    names = tuple(f"c{number}" for number in range(7))
    before = dataclasses.replace(RECORD, classes=names, parts={"train": (CAT,) * 7})
    now = dataclasses.replace(before, parts={"train": (dataclasses.replace(CAT, count=6),) * 7})
    assert changes(before, now).endswith("train images of class 'c2': 6, were 5; and 4 more such changes")


@pytest.mark.parametrize(
    "change",
    [
        {"classes": "cat, dog"},
        {"classes": ["cat"]},
        {"classes": ["cat", 1]},
        {"num_train": -1},
        {"num_train": True},
        {"image_size": "16"},
        {"parts": {"train": [{"count": 1, "names": ""}] * 2}},
        {"parts": {"train": [{"count": 1.5, "names": "", "content": ""}] * 2}},
        {"parts": {"other": []}},
        {"parts": []},
        {"name": None},
    ],
)
def test_what_is_no_record_is_refused_and_the_run_still_opens(tmp_path, change):
    folder = create_run(tmp_path / "demo", {"seed": 0}, "0.1", RECORD)
    file = folder / "images.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(
        RunFolderError, match=r"^record of the images: got .*images\.json .*the file that the run wrote$"
    ):
        read_images(folder)
    contents = read_run(folder)
    assert contents.images is None
    assert [problem.startswith("images.json cannot be read") for problem in contents.problems] == [True]


def test_links_are_not_followed(tmp_path):
    folder = create_run(tmp_path / "demo", {"seed": 0}, "0.1", RECORD)
    (folder / "images.json").rename(tmp_path / "elsewhere.json")
    (folder / "images.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(RunFolderError, match="not a link"):
        read_images(folder)
