"""Which folders are parts and which are classes, whatever people call them; doubt is refused in words."""

from __future__ import annotations

import shutil
from collections import Counter

import pytest
from PIL import Image

from dnad_ray.data.folder_parts import find_images, find_parts
from dnad_ray.data.image_folder import plan_image_folder
from dnad_ray.errors import DataError


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)


def classes(root, *names):
    for name in names or ("cat", "dog"):
        write(root / name / "0.png")
        write(root / name / "1.png")


def plan(root, **options):
    return plan_image_folder(root, None, lambda *_: None, **options)


@pytest.mark.parametrize("names", [("Training", "Testing"), ("training", "test"), ("TRAIN", "testing")])
def test_parts_by_their_usual_names(tmp_path, names):
    """fastai's issue 1552: test images that were trained on as a class."""
    for name in names:
        classes(tmp_path / name)
    found = plan(tmp_path)
    assert found.classes == ("cat", "dog")
    assert {path.parts[-3] for path in found.train.paths} == {names[0]}
    assert {path.parts[-3] for path in found.test.paths} == {names[1]}


def test_dev_is_the_validation_part(tmp_path):
    classes(tmp_path / "train")
    classes(tmp_path / "dev")
    assert len(plan(tmp_path).validation.paths) == 4


@pytest.mark.parametrize(
    ("make", "given", "allowed"),
    [
        # A class called "train" with folders of its own, beside other classes.
        (
            lambda root: [classes(root / "train", "steam", "diesel"), classes(root, "bus", "car")],
            "{root} with bus beside train",
            "either classes or parts",
        ),
        (lambda root: [classes(root / "train"), classes(root / "Train")], "{root}/Train and {root}/train", "one train"),
        (lambda root: [classes(root / "train"), classes(root / "training")], "{root}/train and", "one train folder"),
        (
            lambda root: [classes(root / "train"), classes(root / "test"), classes(root / "Testing")],
            "{root}/Testing and {root}/test",
            "one test folder",
        ),
        # A part of a name that we do not know: training must not ignore it unsaid.
        (lambda root: [classes(root / "train"), classes(root / "eval")], "{root}/eval", "val, valid, validation, dev"),
        (
            lambda root: [classes(root / "train"), classes(root / "test"), classes(root / "holdout", "dog")],
            "{root}/holdout",
            "it has the class folders of train",
        ),
        (
            lambda root: [classes(root / "train"), write(root / "unlabelled" / "0.png")],
            "{root} with unlabelled beside train",
            "images of no part elsewhere",
        ),
        (lambda root: classes(root / "Testing"), "{root}", "a train folder beside its test"),
    ],
)
def test_doubt_is_refused_in_words(tmp_path, make, given, allowed):
    make(tmp_path)
    with pytest.raises(DataError) as caught:
        plan(tmp_path)
    assert str(caught.value.given).startswith(given.format(root=tmp_path))
    assert allowed in caught.value.allowed


def test_folders_beside_sure_parts_are_named(tmp_path):
    for part in ("train", "test"):
        classes(tmp_path / part)
    write(tmp_path / "unlabelled" / "0.png")
    (tmp_path / "annotations").mkdir()
    assert plan(tmp_path).notes == ("not looked at: annotations, unlabelled beside train",)


def test_a_flat_test_part_stops_no_search(tmp_path):
    classes(tmp_path / "train")
    write(tmp_path / "test" / "0.png")
    found = plan(tmp_path, is_test_used=False)
    assert (found.test, len(found.train.paths)) == (None, 4)
    assert f"be refused: image folder: got '{tmp_path / 'test'}'" in found.notes[0]
    with pytest.raises(DataError, match="image folder"):
        plan(tmp_path)


def test_what_file_servers_add_is_no_image(tmp_path):
    classes(tmp_path)
    for junk in ("@eaDir", "__MACOSX", "#recycle"):
        write(tmp_path / junk / "0.png")
        write(tmp_path / "cat" / junk / "0.png")
    assert find_parts(tmp_path) == ({}, ())
    found = plan(tmp_path)
    assert (found.classes, len(found.train.paths), found.notes) == (("cat", "dog"), 4, ())


def test_images_by_other_endings_and_without_one(tmp_path):
    classes(tmp_path)
    names = ("a.jfif", "b.JPE", "c.pbm", "d.pnm", "e.apng", "10001")
    for name in names:
        shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "cat" / name)
    for name in ("x.heic", "y.heic", "notes.txt", "README", "empty"):
        (tmp_path / "cat" / name).write_bytes(b"Please" if name != "empty" else b"")
    images, others = find_images(tmp_path / "cat")
    assert [path.name for path in images] == sorted(["0.png", "1.png", *names])
    assert others == Counter({".heic": 2, "": 2, ".txt": 1})
    (note,) = plan(tmp_path).notes
    assert note == "left out 5 files whose endings are not those of images (2 .heic, 2 without an ending, 1 .txt)"


@pytest.mark.parametrize(
    "content",
    [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n", b"BM12", b"GIF89a", b"II*\0", b"MM\0*", b"P5 8 8", b"RIFF\0\0\0\0WEBP"],
)
def test_images_without_an_ending_are_known_by_their_first_bytes(tmp_path, content):
    (tmp_path / "picture").write_bytes(content)
    assert find_images(tmp_path)[0] == [tmp_path / "picture"]
    (tmp_path / "picture").write_bytes(b"x" + content)
    assert find_images(tmp_path)[0] == []


def test_links_in_a_circle_are_passed_over(tmp_path):
    classes(tmp_path)
    (tmp_path / "cat" / "loop").symlink_to("loop")
    (tmp_path / "cycle").symlink_to(tmp_path / "cycle")
    assert len(plan(tmp_path).train.paths) == 4


def test_class_folder_of_a_name_that_is_no_text_is_refused(tmp_path):
    classes(tmp_path)
    classes(tmp_path, b"caf\xe9".decode(errors="surrogateescape"))
    with pytest.raises(DataError, match="allowed: a name in UTF-8"):
        plan(tmp_path)
