"""The fingerprint of images: what changes it, what does not, and images that are equal."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dnad_ray.config.run import DataConfig
from dnad_ray.data.loading import load_data
from dnad_ray.data.summary import classes_in_words
from dnad_ray.run_folder.images import changes


def picture(path, level):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((8, 8), level, np.uint8)
    pixels[0, 0] = 255 - level
    Image.fromarray(pixels).save(path)


@pytest.fixture
def root(tmp_path):
    """Five images of each of two classes."""
    for index in range(5):
        picture(tmp_path / "cat" / f"{index}.png", index)
        picture(tmp_path / "dog" / f"{index}.png", 100 + index)
    return tmp_path


def record(root, **settings):
    return load_data(DataConfig(name="imagefolder", root=str(root), **settings)).record


def _add(root):
    picture(root / "dog" / "9.png", 9)


def _remove(root):
    (root / "dog" / "4.png").unlink()


def _alter(root):
    picture(root / "dog" / "4.png", 77)


def _rename(root):
    (root / "dog" / "4.png").rename(root / "dog" / "5.png")


def _swap_two_images(root):
    for old, new in (("0", "x"), ("1", "0"), ("x", "1")):
        (root / "dog" / f"{old}.png").rename(root / "dog" / f"{new}.png")


def _swap_labels(root):
    for old, new in (("cat", "x"), ("dog", "cat"), ("x", "dog")):
        (root / old).rename(root / new)


def _new_class(root):
    for level in (1, 2):
        picture(root / "cow" / f"{level}.png", level)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_add, "train images of class 'dog': 6, were 5"),
        (_remove, "train images of class 'dog': 4, were 5"),
        (_alter, "train images of class 'dog': other content"),
        (_rename, "train images of class 'dog': other names"),
        (_swap_two_images, "train images of class 'dog': other content"),
        (_swap_labels, "train images of class 'cat': other content; train images of class 'dog': other content"),
        (_new_class, "new classes cow"),
    ],
)
def test_what_changed_is_said(root, change, words):
    before = record(root)
    change(root)
    assert changes(before, record(root)) == words


def test_fingerprint_follows_from_the_files_alone(root, tmp_path_factory):
    """Not from where they are, how they are read, or at what size."""
    first = record(root)
    moved = tmp_path_factory.mktemp("moved") / "elsewhere"
    root.rename(moved)
    for settings in ({}, {"image_size": 16}, {"storage": "disk"}, {"validation_share": 0.4}, {"split_seed": 3}):
        assert record(moved, **settings).digest == first.digest
    moved.rename(root)


def test_numbers_and_own_parts(root, tmp_path_factory):
    whole = tmp_path_factory.mktemp("whole")
    root.rename(whole / "train")
    picture(whole / "val" / "cat" / "0.png", 50)
    picture(whole / "test" / "dog" / "0.png", 60)
    picture(whole / "test" / "dog" / "1.png", 61)
    before = record(whole)
    assert (before.num_train, before.num_validation, before.num_test) == (10, 1, 2)
    assert [entry.count for entry in before.parts["test"]] == [0, 2]
    picture(whole / "test" / "dog" / "1.png", 62)
    assert changes(before, record(whole)) == ""  # a search does not look at them
    picture(whole / "val" / "cat" / "0.png", 51)
    assert changes(before, record(whole)) == "validation images of class 'cat': other content"
    (whole / "train").rename(root)


def test_record_of_digits():
    first, other = (load_data(DataConfig(split_seed=seed)).record for seed in (0, 1))
    assert (first.classes, first.channels, first.image_size) == (tuple("0123456789"), 1, 8)
    assert (first.num_train, first.num_validation, first.num_test) == (1151, 287, 359)
    assert sum(entry.count for entry in first.parts["train"]) == 1438
    assert first.digest == other.digest == load_data(DataConfig(image_size=16)).record.digest


def test_equal_images_are_warned_about(root):
    assert load_data(DataConfig(name="imagefolder", root=str(root))).notes == ()
    for index in range(5):
        picture(root / "cat" / f"{index}.png", 100)
    (note,) = load_data(DataConfig(name="imagefolder", root=str(root), storage="disk")).notes
    # Four of the five cats are equal to the first one, and so is a dog; whatever was held out.
    assert note.startswith("5 of 10 images have exactly the pixels of an earlier one as the network sees them, 1 of ")
    (same,) = load_data(DataConfig(name="imagefolder", root=str(root))).notes
    assert same == note


def test_classes_in_words(root):
    data = load_data(DataConfig(name="imagefolder", root=str(root)))
    assert classes_in_words(data) == "classes, training + validation images: cat 4 + 1, dog 4 + 1; no test images"
    assert classes_in_words(data, "test") == "classes, training + test images: cat 4 + 1, dog 4 + 1"


def test_many_classes_in_words(tmp_path):
    for label in range(14):
        for index in range(2 + (label == 3)):
            picture(tmp_path / f"c{label:02d}" / f"{index}.png", 10 * label + index)
    words = classes_in_words(load_data(DataConfig(name="imagefolder", root=str(tmp_path))))
    assert words.startswith("classes, training + validation images: c00 1 + 1, ")
    assert "c11 1 + 1 and 2 more; 1 to 2 + 1 to 1 of each class" in words
