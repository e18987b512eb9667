"""Named datasets: the real digits, and tiny files in the true formats of those that torchvision reads."""

from __future__ import annotations

import hashlib
import struct

import numpy as np
import pytest
from scipy.io import savemat
from sklearn.datasets import load_digits

from dnad_ray.config.run import DataConfig
from dnad_ray.data.images import Augmentation
from dnad_ray.data.loading import load_data, load_test
from dnad_ray.data.named_datasets import NAMED_DATASETS
from dnad_ray.errors import DataError
from dnad_ray.runtime.torchvision_import import torchvision_datasets

_NAMES = tuple(str(digit) for digit in range(10))


def _rows(images):
    return [image.tobytes() for image in images]


def test_digits_are_all_there_in_their_levels():
    original = load_digits()
    train, test = (NAMED_DATASETS["digits"].read(DataConfig(), training).split for training in (True, False))
    # 16 levels to 255: 0 is 0, 8 is 127.5 and rounds to 128, 16 is 255.
    levels = {level: round(level * 255 / 16 + 1e-9) for level in range(17)}
    expected = np.vectorize(levels.get)(original.images.astype(int)).astype(np.uint8)
    together = _rows(train.images) + _rows(test.images)
    assert sorted(together) == sorted(_rows(expected))
    assert (len(train), len(test)) == (1438, 359)
    assert train.images.shape[1] == NAMED_DATASETS["digits"].channels == 1
    assert np.bincount(original.target).tolist() == (np.bincount(train.labels) + np.bincount(test.labels)).tolist()
    by_pixels = dict(zip(_rows(expected), original.target, strict=True))
    assert [by_pixels[row] for row in _rows(test.images)] == test.labels.tolist()


def test_digits_test_images_are_never_searched():
    test = set(_rows(load_test(DataConfig()).images))
    for seed in range(3):
        for share in (0.1, 0.5):
            data = load_data(DataConfig(split_seed=seed, validation_share=share))
            train, validation = set(_rows(data.train.images)), set(_rows(data.validation.images))
            assert len(data.train) + len(data.validation) == 1438
            assert not test & train
            assert not test & validation
            assert not train & validation


def _python2_pickle(entries):
    """Return the bytes that Python 2 and its numpy wrote, as in the CIFAR files: strings, lists and one array."""

    def string(text):
        return b"T" + struct.pack("<I", len(text)) + text

    def number(value):
        return b"J" + struct.pack("<i", value)

    def value(item):
        if isinstance(item, np.ndarray):
            empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + number(-1) + number(-1) + b"K\x00tb"
            shape = number(item.shape[0]) + number(item.shape[1]) + b"\x86"
            return empty + b"(K\x01" + shape + dtype + b"\x89" + string(item.tobytes()) + b"tb"
        items = (number(entry) if isinstance(entry, int) else string(entry.encode()) for entry in item)
        return b"](" + b"".join(items) + b"e"

    return b"\x80\x02}(" + b"".join(string(key.encode()) + value(item) for key, item in entries.items()) + b"u."


def _cifar(monkeypatch, root, name, batches, num_classes):
    """Write a tiny CIFAR, and put its checksums where torchvision has those of the real one."""
    reader = getattr(torchvision_datasets(), name)
    folder = root / reader.base_folder
    folder.mkdir(parents=True)
    label_key = "labels" if name == "CIFAR10" else "fine_labels"
    checksums = {}

    def write(file, entries):
        content = _python2_pickle(entries)
        (folder / file).write_bytes(content)
        checksums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()

    for file, (images, labels) in batches.items():
        write(file, {"data": images.reshape(len(images), -1), label_key: labels})
    write(reader.meta["filename"], {reader.meta["key"]: [f"class {index}" for index in range(num_classes)]})
    for table in ("train_list", "test_list"):
        replaced = [[file, checksums[file]] for file, _ in getattr(reader, table)]
        monkeypatch.setattr(reader, table, replaced)
    monkeypatch.setattr(reader, "meta", reader.meta | {"md5": checksums[reader.meta["filename"]]})
    return folder


def _images(seed, num, *shape):
    return np.random.default_rng(seed).integers(0, 256, (num, *shape), np.uint8)


@pytest.fixture
def cifar10(monkeypatch, tmp_path):
    files = [f"data_batch_{index}" for index in range(1, 6)] + ["test_batch"]
    batches = {file: (_images(index, 10, 3, 32, 32), list(range(10))) for index, file in enumerate(files)}
    folder = _cifar(monkeypatch, tmp_path, "CIFAR10", batches, 10)
    return batches, folder


def test_cifar10_is_read(cifar10, tmp_path):
    batches, _ = cifar10
    config = DataConfig(name="cifar10", root=str(tmp_path))
    data, test = load_data(config), load_test(config)
    everything = _rows(data.train.images) + _rows(data.validation.images)
    assert sorted(everything) == sorted(
        row for file, (images, _) in batches.items() if file != "test_batch" for row in _rows(images)
    )
    assert (test.images == batches["test_batch"][0]).all()
    assert test.labels.tolist() == list(range(10))
    # 5 images of each class: 1 is held out.
    assert np.bincount(data.validation.labels).tolist() == [1] * 10
    assert np.bincount(data.train.labels).tolist() == [4] * 10
    assert data.classes == tuple(f"class {index}" for index in range(10))
    assert (data.image_size, data.in_channels, data.num_classes) == (32, 3, 10)
    assert NAMED_DATASETS["cifar10"].channels == 3
    assert data.augmentation == Augmentation(pad=4, flip=True)
    assert data.train.images.flags.c_contiguous


def test_cifar10_damaged_file_is_noticed(cifar10, tmp_path):
    _, folder = cifar10
    with (folder / "data_batch_3").open("ab") as file:
        file.write(b"more")
    with pytest.raises(DataError, match=r"data.root: .*intact files of cifar10, or data.download: true"):
        load_data(DataConfig(name="cifar10", root=str(tmp_path)))


def test_cifar100_is_read(monkeypatch, tmp_path):
    batches = {
        "train": (_images(0, 300, 3, 32, 32), [index % 100 for index in range(300)]),
        "test": (_images(1, 100, 3, 32, 32), list(range(100))),
    }
    _cifar(monkeypatch, tmp_path, "CIFAR100", batches, 100)
    data = load_data(DataConfig(name="cifar100", root=str(tmp_path)))
    assert (data.num_classes, len(data.train), len(data.validation)) == (100, 200, 100)
    assert data.augmentation == Augmentation(pad=4, flip=True)


def test_svhn_is_read_with_digit_zero_as_class_zero(monkeypatch, tmp_path):
    reader = torchvision_datasets().SVHN
    pixels = {"train": _images(0, 20, 32, 32, 3), "test": _images(1, 10, 32, 32, 3)}
    table = dict(reader.split_list)
    for part, images in pixels.items():
        file = tmp_path / f"{part}_32x32.mat"
        labels = np.arange(len(images)) % 10 + 1  # 1..10, and 10 means the digit 0
        savemat(file, {"X": images.transpose(1, 2, 3, 0), "y": labels.astype(np.uint8)[:, None]})
        checksum = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        table[part] = [*table[part][:2], checksum]
    monkeypatch.setattr(reader, "split_list", table)
    config = DataConfig(name="svhn", root=str(tmp_path))
    data, test = load_data(config), load_test(config)
    assert (test.images == pixels["test"].transpose(0, 3, 1, 2)).all()
    assert test.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    assert data.classes == _NAMES
    assert data.in_channels == NAMED_DATASETS["svhn"].channels == 3
    assert data.augmentation == Augmentation(pad=4)


def _fashion_mnist(root, num_labels=30):
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    pixels = {"train": _images(0, 30, 28, 28), "t10k": _images(1, 10, 28, 28)}
    for part, images in pixels.items():
        header = struct.pack(">IIII", 0x0803, *images.shape)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        count = num_labels if part == "train" else 10
        labels = bytes(index % 10 for index in range(count))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x0801, count) + labels)
    return pixels


def test_fashion_mnist_is_read_in_grey(tmp_path):
    pixels = _fashion_mnist(tmp_path)
    config = DataConfig(name="fashion_mnist", root=str(tmp_path))
    data, test = load_data(config), load_test(config)
    assert (test.images[:, 0] == pixels["t10k"]).all()
    assert (data.image_size, data.in_channels, data.num_classes) == (28, 1, 10)
    assert NAMED_DATASETS["fashion_mnist"].channels == 1
    assert data.classes[1] == "Trouser"
    assert data.augmentation == Augmentation(pad=2, flip=True)


def test_fashion_mnist_inconsistent_files_are_noticed(tmp_path):
    _fashion_mnist(tmp_path, num_labels=29)
    with pytest.raises(DataError, match="30 images do not match 29 labels"):
        load_data(DataConfig(name="fashion_mnist", root=str(tmp_path)))


def test_fashion_mnist_cut_off_file_is_noticed(tmp_path):
    _fashion_mnist(tmp_path)
    file = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DataError, match="intact files of fashion_mnist") as caught:
        load_data(DataConfig(name="fashion_mnist", root=str(tmp_path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "fashion_mnist"])
@pytest.mark.parametrize("load", [load_data, load_test])
def test_torchvision_needs_a_folder_or_a_download(tmp_path, name, load):
    with pytest.raises(DataError, match=r"data.root: got None; .*data.download: true"):
        load(DataConfig(name=name))
    with pytest.raises(DataError, match=r"\(missing\)'; .*data.download: true"):
        load(DataConfig(name=name, root=str(tmp_path / "nowhere")))
    with pytest.raises(DataError, match=r"data.root: .*data.download: true"):
        load(DataConfig(name=name, root=str(tmp_path)))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"\(not a folder\)"):
        load(DataConfig(name=name, root=str(tmp_path / "file"), download=True))
    assert not (tmp_path / "nowhere").exists()


def test_torchvision_download_without_network_is_one_line(monkeypatch, tmp_path):
    def unreachable(self):
        raise OSError("no route\nto host")

    monkeypatch.setattr(torchvision_datasets().CIFAR10, "download", unreachable)
    with pytest.raises(DataError, match=r"a network that reaches its server \(no route to host\)"):
        load_data(DataConfig(name="cifar10", root=str(tmp_path / "new"), download=True))
