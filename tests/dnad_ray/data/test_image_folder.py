"""Which files of a folder are images of which class and part, and every way in which a folder can be wrong."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from dnad_ray.data.image_folder import plan_image_folder, user_folder
from dnad_ray.errors import DataError


def _silent(message, done, total):
    pass


def _plan(root, image_size=None):
    return plan_image_folder(root, image_size, _silent)


def _write(path, mode="L", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def _classes(root, names=("cat", "dog"), num_images=2):
    for name in names:
        for index in range(num_images):
            _write(root / name / f"{index}.png")
    return root


def test_plan_class_folders(tmp_path):
    plan = _plan(_classes(tmp_path))
    assert plan.classes == ("cat", "dog")
    assert [path.relative_to(tmp_path).as_posix() for path in plan.train.paths] == [
        *("cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png")
    ]
    assert plan.train.labels.tolist() == [0, 0, 1, 1]
    assert (plan.channels, plan.image_size, plan.validation, plan.test) == (1, 8, None, None)


def test_plan_select_keeps_files_and_labels_together(tmp_path):
    part = _plan(_classes(tmp_path)).train.select(np.array([3, 0]))
    assert [path.parent.name for path in part.paths] == ["dog", "cat"]
    assert part.labels.tolist() == [1, 0]


def test_plan_finds_nested_images_of_every_kind_and_nothing_hidden(tmp_path):
    _classes(tmp_path)
    endings = ("jpg", "JPEG", "Png", "bmp", "webp", "tif", "TIFF", "gif", "ppm", "pgm")
    for ending in endings:
        _write(tmp_path / "dog" / "deep" / "down" / f"x.{ending}")
    for ignored in (".hidden.png", ".git/a.png", "dog/.trash/a.png", "dog/._0.png"):
        _write(tmp_path / ignored)
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "readme.md").write_text("no class")
    plan = _plan(tmp_path)
    assert plan.classes == ("cat", "dog")
    assert len(plan.train.paths) == 4 + len(endings)


def test_plan_follows_links_but_not_in_circles(tmp_path):
    root = _classes(tmp_path / "root")
    _write(tmp_path / "elsewhere" / "a.png")
    (root / "dog" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "dog" / "circle").symlink_to(root / "dog", target_is_directory=True)
    assert _plan(root).train.labels.tolist() == [0, 0, 1, 1, 1]


def test_plan_names_a_broken_link_and_opens_no_pipe(tmp_path):
    _classes(tmp_path)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    assert len(_plan(tmp_path).train.paths) == 4
    (tmp_path / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"gone\.png'; allowed: an intact image"):
        _plan(tmp_path)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL"])
def test_plan_parts(tmp_path, name):
    _classes(tmp_path / "train")
    _classes(tmp_path / name, names=("dog",), num_images=3)
    _classes(tmp_path / "Test", names=("cat",), num_images=1)
    (tmp_path / "annotations").mkdir()
    plan = _plan(tmp_path, image_size=16)
    assert plan.classes == ("cat", "dog")
    assert plan.train.labels.tolist() == [0, 0, 1, 1]
    assert plan.validation.labels.tolist() == [1, 1, 1]
    assert plan.test.labels.tolist() == [0]
    assert plan.image_size == 16


def test_plan_a_class_may_be_called_train(tmp_path):
    plan = _plan(_classes(tmp_path, names=("train", "bus", "test")))
    assert plan.classes == ("bus", "test", "train")
    assert plan.test is None


def test_plan_colour_and_size_follow_training_images_alone(tmp_path):
    _classes(tmp_path / "train")
    _write(tmp_path / "test" / "cat" / "a.png", mode="RGB", size=(50, 60))
    plan = _plan(tmp_path)
    assert (plan.channels, plan.image_size) == (1, 8)


def _empty_class(root):
    _classes(root)
    (root / "empty").mkdir()
    (root / "empty" / "notes.txt").write_text("")


def _foreign_test_class(root):
    _classes(root / "train")
    _classes(root / "test", names=("cat", "horse"))


def _foreign_validation_class(root):
    _classes(root / "train")
    _classes(root / "val", names=("horse",))


def _two_validations(root):
    _classes(root / "train")
    _classes(root / "val")
    _classes(root / "valid")


def _empty_test(root):
    _classes(root / "train")
    (root / "test").mkdir()


def _flat_parts(root):
    _write(root / "train" / "0.png")
    _write(root / "test" / "0.png")


@pytest.mark.parametrize(
    ("make", "given", "allowed"),
    [
        (lambda root: None, "{root} (no class folder)", "at least 2 classes"),
        (lambda root: _write(root / "0.png"), "{root} (no class folder)", "at least 2 classes"),
        (lambda root: _classes(root, names=("cat",)), "{root} (one class folder)", "at least 2 classes"),
        (
            _empty_class,
            "{root}/empty",
            "at least one image (apng, bmp, gif, jfif, jpe, jpeg, jpg, pbm, pgm, png, pnm, ppm, tif, ",
        ),
        (_foreign_test_class, "{root}/test/horse", "a class of the training images: cat, dog"),
        (_foreign_validation_class, "{root}/val/horse", "a class of the training images: cat, dog"),
        (_two_validations, "{root}/val and {root}/valid", "one validation folder"),
        (_empty_test, "{root}/test", "one folder of images per class"),
        (_flat_parts, "{root}/train (no class folder)", "at least 2 classes"),
        (lambda root: _classes(root / "test"), "{root}", "a train folder beside its test or validation folder"),
    ],
)
def test_plan_refuses_in_one_line(tmp_path, make, given, allowed):
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        _plan(tmp_path)
    assert caught.value.given == given.format(root=tmp_path)
    assert allowed in caught.value.allowed
    assert "\n" not in str(caught.value)


def test_user_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("")
    assert user_folder("~/photos", "photos") == tmp_path / "photos"
    assert user_folder("~/new", "photos", may_be_missing=True) == tmp_path / "new"
    for root in (None, "", "~/new", "~nobody-at-all/photos", "x" * 5000, "~/file", "nul\0byte"):
        with pytest.raises(DataError, match=r"data.root: .*allowed: photos"):
            user_folder(root, "photos")
    with pytest.raises(DataError, match="not a folder"):
        user_folder("~/file", "photos", may_be_missing=True)
