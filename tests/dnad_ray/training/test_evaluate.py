"""Accuracy of a network whose answers are known, and batch statistics worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from dnad_ray.data.images import Augmentation, ImageData, Split, channel_statistics
from dnad_ray.data.streaming import FileSplit
from dnad_ray.training.evaluate import accuracy_of, recalibrate
from search_spaces.ops import BatchNorm


class _Brightness(nn.Module):
    """Says class 1 for images that are brighter than the average training image; notes in which mode it was asked."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.norm = BatchNorm(1, affine=False)
        self.asked = []

    def forward(self, images):
        self.asked.append((self.training, len(images), images.is_contiguous(memory_format=torch.channels_last)))
        brightness = self.factor * self.norm(images).mean((1, 2, 3))
        return torch.stack([-brightness, brightness], 1)


def _split(levels, labels):
    images = np.empty((len(levels), 1, 4, 4), np.uint8)
    images[:] = np.array(levels, np.uint8)[:, None, None, None]
    return Split(images=images, labels=np.array(labels, np.int64))


def _data(levels=(0, 10, 20, 30, 40, 50, 60), validation=None):
    train = _split(levels, [0] * len(levels))
    mean, std = channel_statistics(train.images)
    return ImageData(
        name="levels",
        classes=("dark", "bright"),
        train=train,
        validation=validation,
        mean=mean,
        std=std,
        augmentation=Augmentation(pad=2, flip=True),
    )


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
@pytest.mark.parametrize("is_training", [True, False])
def test_accuracy_of_known_answers(is_training, batch_size):
    data, network = _data(), _Brightness().train(is_training)
    # The average is 30; of these five the third and the fifth have the wrong label.
    split = _split([0, 29, 10, 31, 255], [0, 0, 1, 1, 0])
    statistics = network.norm.running_mean.clone()
    assert accuracy_of(network, network, split, data, batch_size) == 0.6
    assert network.training is is_training
    assert all(mode is False and channels_last for mode, _, channels_last in network.asked)
    assert sum(number for _, number, _ in network.asked) == 5
    assert torch.equal(network.norm.running_mean, statistics)


def test_accuracy_takes_no_gradients():
    data, network = _data(), _Brightness()
    flags = []

    def logits(images):
        flags.append(torch.is_grad_enabled())
        return network(images)

    assert accuracy_of(network, logits, _split([0, 60], [1, 0]), data, 8) == 0.0
    assert flags == [False]


def _statistics(data, chosen, batch_size):
    """Mean over batches of the mean and of the unbiased variance of normalised pixels."""
    pixels = (data.train.images[chosen] / 255 - data.mean[0]) / data.std[0]
    parts = [pixels[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    return np.mean([part.mean() for part in parts]), np.mean([part.var(ddof=1) for part in parts])


# So many images are asked for and used, in batches of so many.
@pytest.mark.parametrize(("asked", "used", "batch_size"), [(4, 4, 2), (5, 4, 2), (7, 6, 3), (100, 7, 7), (3, 3, 8)])
def test_recalibrate_takes_the_statistics_of_these_images(asked, used, batch_size):
    data, network = _data(), _Brightness()
    network.norm.running_mean.fill_(100), network.norm.running_var.fill_(100)
    network.norm.momentum = 0.03
    before = data.train.images.copy()
    recalibrate(network, network, data, asked, batch_size)
    mean, var = _statistics(data, np.random.RandomState(0).permutation(7)[:used], batch_size)
    assert network.norm.running_mean.item() == pytest.approx(mean, rel=1e-5, abs=1e-6)
    assert network.norm.running_var.item() == pytest.approx(var, rel=1e-5)
    assert network.norm.momentum == 0.03
    assert network.training
    assert network.norm.training
    assert network.factor.grad is None
    assert sum(number for _, number, _ in network.asked) == used
    assert (data.train.images == before).all()


def test_recalibrate_takes_the_same_images_each_time():
    data, networks = _data(), [_Brightness(), _Brightness()]
    np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    state = torch.get_rng_state()
    recalibrate(networks[0], networks[0], data, 4, 2)
    np.random.seed(7)  # noqa: NPY002
    recalibrate(networks[1], networks[1], data, 4, 2)
    recalibrate(networks[1], networks[1], data, 4, 2)
    assert torch.equal(networks[0].norm.running_mean, networks[1].norm.running_mean)
    assert torch.equal(torch.get_rng_state(), state)


def test_recalibrate_knows_no_validation_images():
    network, statistics = _Brightness(), []
    for validation in (None, _split([255, 255], [1, 1])):
        recalibrate(network, network, _data(validation=validation), 6, 2)
        statistics.append(network.norm.running_mean.item())
    assert statistics[0] == statistics[1]


def test_recalibrate_zero_images_changes_nothing():
    network = _Brightness()
    recalibrate(network, network, _data(), 0, 2)
    assert not network.asked
    assert (network.norm.running_mean.item(), network.norm.running_var.item()) == (0, 1)


def test_recalibrate_leaves_no_single_image_to_a_batch_norm_without_pixels():
    """With one pixel left, statistics of a single image do not exist and torch refuses."""
    network = nn.Sequential(nn.AvgPool2d(4), BatchNorm(1, affine=False))
    network.register_parameter("unused", nn.Parameter(torch.zeros(())))
    recalibrate(network, network, _data(), 5, 4)
    mean, _ = _statistics(_data(), np.random.RandomState(0).permutation(7)[:4], 4)
    assert network[1].running_mean.item() == pytest.approx(mean, rel=1e-5)


def test_images_from_disk_are_scored_and_recalibrated_as_those_in_memory(tmp_path):
    held, statistics = _data(validation=_split([0, 29, 10, 31, 255], [0, 0, 1, 1, 0])), []
    data = dataclasses.replace(
        held, train=_files(tmp_path / "train", held.train), validation=_files(tmp_path / "val", held.validation)
    )
    for some in (held, data):
        network = _Brightness()
        assert accuracy_of(network, network, some.validation, some, 2) == 0.6
        recalibrate(network, network, some, 6, 2)
        statistics.append((network.norm.running_mean.item(), network.norm.running_var.item()))
    assert statistics[0] == statistics[1]


def _files(folder, split):
    folder.mkdir()
    paths = tuple(str(folder / f"{index}.png") for index in range(len(split)))
    for path, image in zip(paths, split.images, strict=True):
        Image.fromarray(image[0]).save(path)
    return FileSplit(paths=paths, labels=split.labels, image_size=4, channels=1, workers=0)
