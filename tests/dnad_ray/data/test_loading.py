"""Loading from configuration to memory, with digits, image folders and real photographs."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from dnad_ray.config.run import DataConfig
from dnad_ray.data.images import Augmentation, channel_statistics
from dnad_ray.data.loading import DATASET_NAMES, load_data, load_test, resolve_data_argument
from dnad_ray.errors import DataError


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def _folder(root, num_images=10, classes=("cat", "dog"), shape=(16, 16)):
    """Write images of one level each, a different one everywhere."""
    level = 0
    for name in classes:
        for index in range(num_images):
            _write(root / name / f"{index:02d}.png", np.full(shape, level, np.uint8))
            level += 1
    return DataConfig(name="imagefolder", root=str(root))


def _levels(split):
    assert (split.images == split.images[:, :1, :1, :1]).all()
    return split.images[:, 0, 0, 0].tolist()


def test_digits_by_default():
    data = load_data(DataConfig())
    assert data.name == "digits"
    assert data.classes == tuple("0123456789")
    assert (data.image_size, data.in_channels, data.num_classes) == (8, 1, 10)
    assert data.train.images.shape == (len(data.train), 1, 8, 8)
    assert data.augmentation == Augmentation(pad=1, flip=False, cutout=0)
    # A fifth of each class, and all classes on both sides.
    shares = np.bincount(data.validation.labels) / (
        np.bincount(data.train.labels) + np.bincount(data.validation.labels)
    )
    assert shares == pytest.approx(0.2, abs=0.01)


def test_statistics_come_from_the_train_part_alone():
    data = load_data(DataConfig())
    assert (data.mean, data.std) == channel_statistics(data.train.images)
    assert data.mean == pytest.approx([(data.train.images / 255).mean()])


def test_split_seed_decides_the_validation_images():
    first, same, other = (load_data(DataConfig(split_seed=seed)) for seed in (1, 1, 2))
    assert (first.validation.images == same.validation.images).all()
    assert (first.train.images == same.train.images).all()
    assert not np.array_equal(first.validation.images, other.validation.images)


@pytest.mark.parametrize("size", [4, 16, 20])
def test_image_size_resizes_digits(size):
    data, own = load_data(DataConfig(image_size=size)), load_data(DataConfig())
    assert data.image_size == size
    assert load_test(DataConfig(image_size=size)).images.shape == (359, 1, size, size)
    assert data.augmentation.pad == {4: 1, 16: 2, 20: 2}[size]
    assert data.mean == pytest.approx(own.mean, abs=0.02)
    if size == 4:  # halving with antialiasing: a triangle of weights 1, 3, 3, 1 on either side of the border
        rows = own.train.images[0, 0].astype(float)
        weights = np.array([1, 3, 3, 1]) / 8
        inner = weights @ rows[1:5, 1:5] @ weights
        assert data.train.images[0, 0, 1, 1] == pytest.approx(inner, abs=1.5)


def test_augment_none_keeps_cutout():
    assert load_data(DataConfig(augment="none", cutout=3)).augmentation == Augmentation(cutout=3)
    assert load_data(DataConfig(cutout=3)).augmentation == Augmentation(pad=1, cutout=3)
    with pytest.raises(DataError, match=r"data.cutout: got 9; allowed: at most the side of the images, 8 pixels"):
        load_data(DataConfig(cutout=9))


def test_unknown_dataset_lists_what_there_is():
    for load in (load_data, load_test):
        with pytest.raises(DataError) as caught:
            load(DataConfig(name="mnist"))
        assert str(caught.value) == (
            "data.name: got 'mnist'; allowed: one of digits, cifar10, cifar100, svhn, fashion_mnist, imagefolder"
        )


def test_image_folder_holds_out_of_each_class(tmp_path):
    config = _folder(tmp_path)
    data = load_data(config)
    assert data.name == "imagefolder"
    assert data.classes == ("cat", "dog")
    assert (data.image_size, data.in_channels) == (16, 1)
    assert data.augmentation == Augmentation(pad=2, flip=True)
    assert data.train.labels.tolist() == [0] * 8 + [1] * 8
    assert data.validation.labels.tolist() == [0, 0, 1, 1]
    assert sorted(_levels(data.train) + _levels(data.validation)) == list(range(20))
    assert all((level >= 10) == label for level, label in zip(_levels(data.train), data.train.labels, strict=True))
    assert load_test(config) is None
    assert _levels(load_data(config).validation) == _levels(data.validation)


def test_image_folder_with_parts_of_its_own(tmp_path):
    _folder(tmp_path / "train", num_images=3, shape=(20, 24))
    _folder(tmp_path / "val", num_images=1, shape=(40, 40))
    _folder(tmp_path / "test", num_images=2, shape=(30, 50))
    config = DataConfig(name="imagefolder", root=str(tmp_path))
    data, test = load_data(config), load_test(config)
    assert _levels(data.train) == [0, 1, 2, 3, 4, 5]
    assert _levels(data.validation) == [0, 1]
    assert _levels(test) == [0, 1, 2, 3]
    assert data.train.images.shape[1:] == data.validation.images.shape[1:] == test.images.shape[1:] == (1, 16, 16)


def test_image_folder_changes_no_file(tmp_path):
    config = _folder(tmp_path, num_images=3)
    before = {
        path: (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns) for path in tmp_path.rglob("*")
    }
    load_data(config)
    after = {
        path: (path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns) for path in tmp_path.rglob("*")
    }
    assert after == before


def test_image_folder_too_few_images(tmp_path):
    config = _folder(tmp_path)
    _write(tmp_path / "rare" / "only.png", np.zeros((16, 16), np.uint8))
    with pytest.raises(DataError, match="training images of class 'rare': got 1; allowed: at least 2 images"):
        load_data(config)


def test_image_folder_unreadable_image(tmp_path):
    config = _folder(tmp_path)
    (tmp_path / "dog" / "05.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"image: got '.*/dog/05\.png'; allowed: an intact image"):
        load_data(config)


@pytest.mark.parametrize("storage", ["memory", "disk"])
def test_image_folder_of_broken_images_names_them_all_or_skips_them(tmp_path, storage):
    config = _folder(tmp_path).model_copy(update={"storage": storage})
    whole = load_data(config)
    for name, content in (("cat/03", b""), ("dog/05", b"no image"), ("dog/07", None)):
        path = tmp_path / f"{name}.png"
        path.write_bytes(path.read_bytes()[:50] if content is None else content)  # the last has a header that is fine
    with pytest.raises(DataError, match=r"images: got '3 files: .*cat/03.png, .*dog/05.png, .*dog/07.png'"):
        load_data(config)
    data = load_data(config.model_copy(update={"broken": "skip"}))
    assert (len(whole.train), len(data.train), len(data.validation)) == (16, 13, 4)  # 9 - 2 and 8 - 2 are left
    assert [note.startswith("left out 3 broken images: ") for note in data.notes] == [True]
    assert [entry.count for entry in data.record.parts["train"]] == [9, 8]


def test_image_folder_of_broken_test_images_skips_them(tmp_path):
    _folder(tmp_path / "train")
    _folder(tmp_path / "test", num_images=3)
    (tmp_path / "test" / "cat" / "01.png").write_bytes(b"")
    config = DataConfig(name="imagefolder", root=str(tmp_path))
    assert load_data(config).record.num_test == 6
    with pytest.raises(DataError, match=r"test/cat/01\.png"):
        load_test(config)
    assert _levels(load_test(config.model_copy(update={"broken": "skip"}))) == [0, 2, 3, 4, 5]


def test_image_folder_without_an_intact_image_of_a_class(tmp_path):
    config = _folder(tmp_path, num_images=2).model_copy(update={"broken": "skip"})
    for path in (tmp_path / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"class folder: got '.*dog'; allowed: a folder with at least one intact image"):
        load_data(config)


def test_image_folder_of_16_bits_is_as_bright_in_all_parts(tmp_path):
    """Twelve bits in files of sixteen: the level of white follows from the training images."""
    for part, levels in (("train", (0, 1024, 2048, 4095)), ("test", (2048, 5000))):
        for index, level in enumerate(levels):
            for name in ("cat", "dog"):
                _write(tmp_path / part / name / f"{index}.png", np.full((8, 8), level, np.uint16))
    for settings in ({}, {"storage": "disk", "workers": 0}):
        config = DataConfig(name="imagefolder", root=str(tmp_path), **settings)
        data, test = load_data(config), load_test(config)
        assert data.full_level == 4095
        assert data.notes[0] == "8 training images of 16 bits have no level above 4,095, which is taken as white"
        (images,) = test.stream([np.arange(len(test))], torch.device("cpu"))
        assert images[:, 0, 0, 0].tolist() == [127, 255, 127, 255]
        held = [
            next(part.stream([np.arange(len(part))], torch.device("cpu"))) for part in (data.train, data.validation)
        ]
        assert {*torch.cat(held)[:, 0, 0, 0].tolist()} == {0, 63, 127, 255}


def test_image_folder_root_is_missing_or_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    for root, words in ((None, "got None"), (tmp_path / "gone", "(missing)"), (tmp_path / "file", "(not a folder)")):
        for load in (load_data, load_test):
            with pytest.raises(DataError) as caught:
                load(DataConfig(name="imagefolder", root=root and str(root)))
            assert words in str(caught.value)
            assert str(root) in str(caught.value)


def test_image_folder_that_does_not_fit_is_refused_before_decoding(tmp_path, monkeypatch):
    config = _folder(tmp_path / "train").model_copy(
        update={"root": str(tmp_path), "image_size": 1024, "storage": "memory"}
    )
    _folder(tmp_path / "test")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=20_000_000))
    tracemalloc.start()
    try:
        for load in (load_data, load_test):
            with pytest.raises(
                DataError,
                match=r"20 images of 1024x1024 pixels, 0.02 GB'.*data.image_size: 768 or smaller would fit, or "
                r"data.storage=disk decodes them for every batch",
            ):
                load(config)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("available", [0, 10_000_000])
def test_image_folder_is_streamed_where_it_does_not_fit_or_as_asked(tmp_path, monkeypatch, available):
    """20 + 20 images of 256 x 256: 1.3 MB each part."""
    config = _folder(tmp_path / "train").model_copy(update={"root": str(tmp_path), "image_size": 256, "workers": 0})
    _folder(tmp_path / "test")
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=available))
    for storage, is_streamed in (("auto", available == 0), ("disk", True)):
        asked = config.model_copy(update={"storage": storage})
        data, test = load_data(asked), load_test(asked)
        assert [split.held() is None for split in (data.train, data.validation, test)] == [is_streamed] * 3
        assert (len(data.train), len(data.validation), len(test)) == (16, 4, 20)
        assert (data.image_size, data.in_channels, test.image_size, test.channels) == (256, 1, 256, 1)


def test_image_folder_on_disk_equals_memory(tmp_path, monkeypatch):
    _folder(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    configs = [
        DataConfig(name="imagefolder", root="photos", storage=storage, cutout=3) for storage in ("memory", "disk")
    ]
    held, streamed = map(load_data, configs)
    for name in ("name", "classes", "mean", "std", "augmentation", "image_size", "in_channels"):
        assert getattr(streamed, name) == getattr(held, name)
    monkeypatch.chdir("/")  # a trial may run in another folder
    for ours, theirs in ((streamed.train, held.train), (streamed.validation, held.validation)):
        assert ours.labels.tolist() == theirs.labels.tolist()
        everything = [np.arange(len(ours))]
        for images in ours.stream(everything, torch.device("cpu")):
            assert (images.numpy() == theirs.images).all()


def test_image_folder_on_disk_is_read_through_before_the_search(tmp_path):
    config = _folder(tmp_path / "train").model_copy(update={"root": str(tmp_path), "storage": "disk"})
    _folder(tmp_path / "val")
    calls = []
    load_data(config, lambda *call: calls.append(call))
    assert ("reading training images", 20, 20) in calls
    assert ("reading validation images", 20, 20) in calls
    for part in ("train", "val"):
        bad = tmp_path / part / "dog" / "05.png"
        content = bad.read_bytes()
        bad.write_bytes(content[:50])
        with pytest.raises(DataError, match=rf"image: got '.*/{part}/dog/05\.png'; allowed: an intact image"):
            load_data(config)
        bad.write_bytes(content)
    with pytest.raises(DataError, match=r"data\.cutout: got 17"):
        load_data(config.model_copy(update={"cutout": 17}))


def test_digits_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=1_000_000))
    with pytest.raises(DataError, match=r"1438 images of 64x64.*would fit\)$"):
        load_data(DataConfig(image_size=64))
    with pytest.raises(DataError, match="359 images of 64x64"):
        load_test(DataConfig(image_size=64))


def test_progress_is_told(tmp_path):
    calls = []
    load_data(_folder(tmp_path), lambda *call: calls.append(call))
    assert ("reading image sizes", 20, 20) in calls
    assert ("decoding images", 16, 16) in calls
    assert ("decoding images", 4, 4) in calls


def test_resolve_data_argument_names_win_over_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").write_text("")
    for name in DATASET_NAMES:
        assert resolve_data_argument(name) == {"data.name": name}
    for text, folder in (("./digits", "digits"), ("photos", "photos"), (str(tmp_path / "photos"), "photos")):
        assert resolve_data_argument(text) == {"data.name": "imagefolder", "data.root": str(tmp_path / folder)}
    for text in ("phottos", "file", "", "x" * 5000, "Digits"):
        with pytest.raises(DataError) as caught:
            resolve_data_argument(text)
        assert str(caught.value) == (
            f"--data: got {text!r}; allowed: a dataset (digits, cifar10, cifar100, svhn, fashion_mnist, imagefolder) "
            "or an existing folder of class folders"
        )


def test_real_photographs(repository, tmp_path):
    unpack = repository.parent / "shared" / "data" / "unpack_cifar10.py"
    if not unpack.is_file():
        pytest.skip(f"{unpack} with the CIFAR-10 images is not on this machine")
    command = [sys.executable, str(unpack), str(tmp_path), "--train", "10", "--test", "3"]
    subprocess.run(command, check=True, capture_output=True)
    config = DataConfig(name="imagefolder", root=str(tmp_path))
    data, test = load_data(config), load_test(config)
    assert data.classes[:2] == ("airplane", "automobile")
    assert data.train.images.shape == (80, 3, 32, 32)
    assert np.bincount(data.validation.labels).tolist() == [2] * 10
    assert np.bincount(test.labels).tolist() == [3] * 10
    assert data.augmentation == Augmentation(pad=4, flip=True)
    # The published means of CIFAR-10 are 0.491, 0.482, 0.447, its deviations 0.247, 0.243, 0.262.
    assert data.mean == pytest.approx((0.491, 0.482, 0.447), abs=0.05)
    assert data.std == pytest.approx((0.247, 0.243, 0.262), abs=0.03)
    assert not {row.tobytes() for row in test.images} & {row.tobytes() for row in data.train.images}


def test_padding_of_crops_is_black_only_where_it_is_asked_for():
    assert load_data(DataConfig()).augmentation.is_black is False
    assert load_data(DataConfig(padding="black")).augmentation.is_black is True
    # Without crops there is nothing to pad.
    assert load_data(DataConfig(padding="black", augment="none")).augmentation == Augmentation()
