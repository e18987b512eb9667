"""Batches: the arithmetic of crop, mirror and cutout by hand, and the purity that resuming a search relies on."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dnad_ray.data.augmentation import Augmentation, draw_epoch
from dnad_ray.data.batches import TrainingBatches, evaluation_batches
from dnad_ray.data.images import ImageData, Split

_CPU = torch.device("cpu")


def _data(num_images=7, size=4, channels=1, images=None, **augmentation):
    """Return a dataset whose normalisation leaves the bytes as they are, label = index of the image."""
    if images is None:
        count = num_images * channels * size * size
        images = (np.arange(count) % 255 + 1).astype(np.uint8).reshape(num_images, channels, size, size)
    split = Split(images=images, labels=np.arange(len(images)))
    return ImageData(
        name="made up",
        classes=tuple(str(index) for index in range(len(images))),
        train=split,
        validation=split,
        mean=(0.0,) * images.shape[1],
        std=(1 / 255,) * images.shape[1],
        augmentation=Augmentation(**augmentation),
    )


def _epoch(batches, epoch=0):
    """Return images and labels of an epoch in the order of the dataset."""
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    served = [batches.batch(step) for step in steps]
    images, labels = (torch.cat(parts) for parts in zip(*served, strict=True))
    return images[labels.argsort()], labels


def test_nothing_varied_gives_the_images_themselves():
    data = _data(num_images=6)
    images, labels = _epoch(TrainingBatches(data, 3, 0, _CPU))
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert images.numpy() == pytest.approx(data.train.images)


@pytest.mark.parametrize("channels", [1, 3])
def test_crop_equals_slicing_of_the_padded_image(channels):
    data = _data(num_images=50, channels=channels, pad=2, is_black=True)
    images, _ = _epoch(TrainingBatches(data, 10, 5, _CPU))
    draws = draw_epoch(5, 0, 50, 4, data.augmentation)
    padded = np.pad(data.train.images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for index, (top, left) in enumerate(draws.offset.tolist()):
        assert images[index].numpy() == pytest.approx(padded[index, :, top : top + 4, left : left + 4])
    assert draws.offset.min() == 0
    assert draws.offset.max() == 4


def test_crop_of_one_image_by_hand(monkeypatch):
    image = np.arange(1, 17, dtype=np.uint8).reshape(1, 1, 4, 4)
    draws = draw_epoch(0, 0, 1, 4, Augmentation(pad=1, flip=True))
    draws.offset[:] = torch.tensor([2, 0])  # one row further down, one column to the left of the image
    draws.flip[:] = False
    monkeypatch.setattr("dnad_ray.data.batches.draw_epoch", lambda *arguments: draws)
    batches = TrainingBatches(_data(images=image, pad=1, is_black=True, flip=True), 1, 0, _CPU)
    expected = [[0, 5, 6, 7], [0, 9, 10, 11], [0, 13, 14, 15], [0, 0, 0, 0]]
    assert batches.batch(0)[0][0, 0].numpy() == pytest.approx(np.array(expected))
    draws.flip[:] = True
    mirrored = [row[::-1] for row in expected]
    assert batches.batch(0)[0][0, 0].numpy() == pytest.approx(np.array(mirrored))


def test_flip_mirrors_about_half_of_the_images():
    data = _data(num_images=200, flip=True)
    images, _ = _epoch(TrainingBatches(data, 50, 1, _CPU))
    flip = draw_epoch(1, 0, 200, 4, data.augmentation).flip
    expected = np.where(flip.numpy()[:, None, None, None], data.train.images[..., ::-1], data.train.images)
    assert images.numpy() == pytest.approx(expected)
    assert 70 < int(flip.sum()) < 130


@pytest.mark.parametrize("side", [1, 2, 3, 6])
def test_cutout_blanks_exactly_the_square(side):
    data = _data(num_images=60, size=6, channels=3, cutout=side)
    images, _ = _epoch(TrainingBatches(data, 20, 2, _CPU))
    for index, (row, column) in enumerate(draw_epoch(2, 0, 60, 6, data.augmentation).centre.tolist()):
        expected = data.train.images[index].astype(float)
        top, left = row - side // 2, column - side // 2
        expected[:, max(0, top) : top + side, max(0, left) : left + side] = 0
        assert images[index].numpy() == pytest.approx(expected)


def test_cutout_is_the_mean_colour_and_padding_is_black():
    images = np.full((1, 1, 4, 4), 255, np.uint8)
    data = _data(images=images, cutout=4, pad=2, is_black=True)
    data = ImageData(**{**vars(data), "mean": (0.5,), "std": (0.25,)})
    seen = {value for step in range(30) for value in TrainingBatches(data, 1, 3, _CPU).batch(step)[0].unique().tolist()}
    # White is (1 - 0.5) / 0.25, the border of the crop (0 - 0.5) / 0.25, and the square 0.
    assert seen == {2.0, -2.0, 0.0}


def test_batch_is_pure_in_seed_and_step():
    data = _data(num_images=23, size=8, channels=3, pad=2, flip=True, cutout=2)
    first, second = TrainingBatches(data, 4, 9, _CPU), TrainingBatches(data, 4, 9, _CPU)
    steps = list(range(15))
    forwards = {step: first.batch(step) for step in steps}
    for step in reversed(steps):
        images, labels = second.batch(step)
        assert torch.equal(images, forwards[step][0])
        assert torch.equal(labels, forwards[step][1])
    images, _ = first.batch(3)
    images.zero_()  # what a caller does to a batch must not reach the next one
    assert torch.equal(first.batch(3)[0], forwards[3][0])


def test_each_image_exactly_once_an_epoch():
    batches = TrainingBatches(_data(num_images=12), 4, 0, _CPU)
    assert (batches.num_images, batches.steps_per_epoch) == (12, 3)
    orders = [_epoch(batches, epoch)[1].tolist() for epoch in range(3)]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_incomplete_batch_is_dropped():
    batches = TrainingBatches(_data(num_images=11), 4, 0, _CPU)
    labels = _epoch(batches)[1].tolist()
    assert batches.steps_per_epoch == 2
    assert len(set(labels)) == 8
    assert batches.batch(2)[1].tolist() == draw_epoch(0, 1, 11, 4, Augmentation()).order[:4].tolist()


def test_fewer_images_than_a_batch_are_one_batch():
    batches = TrainingBatches(_data(num_images=3), 128, 0, _CPU)
    assert batches.steps_per_epoch == 1
    assert sorted(batches.batch(5)[1].tolist()) == [0, 1, 2]


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("augmentation", [{}, {"pad": 1, "flip": True, "cutout": 2}])
@pytest.mark.parametrize("channels", [1, 3])
def test_memory_format_changes_the_layout_alone(memory_format, augmentation, channels):
    data = _data(num_images=8, size=8, channels=channels, **augmentation)
    images, _ = TrainingBatches(data, 8, 0, _CPU, memory_format).batch(1)
    assert images.is_contiguous(memory_format=memory_format)
    assert torch.equal(images, TrainingBatches(data, 8, 0, _CPU).batch(1)[0])
    images, _ = next(evaluation_batches(data.validation, data, 8, _CPU, memory_format))
    assert images.is_contiguous(memory_format=memory_format)


def test_evaluation_batches_serve_all_in_order_and_normalised():
    images = np.array([0, 51, 255, 102, 204], np.uint8).reshape(5, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    data = ImageData(**{**vars(_data(images=images, pad=2, flip=True, cutout=4)), "mean": (0.4,), "std": (0.2,)})
    served = list(evaluation_batches(data.validation, data, 2, _CPU))
    assert [len(labels) for _, labels in served] == [2, 2, 1]
    assert torch.cat([labels for _, labels in served]).tolist() == [0, 1, 2, 3, 4]
    values = torch.cat([batch for batch, _ in served])
    expected = np.array([-2, -1, 3, 0, 2]).reshape(5, 1, 1, 1).repeat(4, 2).repeat(4, 3)
    assert values.numpy() == pytest.approx(expected, abs=1e-6)


def test_read_only_arrays_are_shared_without_a_warning_or_a_change():
    data = _data(num_images=6, pad=1, flip=True, cutout=2)
    for array in (data.train.images, data.train.labels):
        array.flags.writeable = False
    before = data.train.images.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batches = TrainingBatches(data, 2, 0, _CPU)
        for step in range(6):
            images, labels = batches.batch(step)
            images.add_(1)
            labels.add_(1)
        for images, labels in evaluation_batches(data.validation, data, 4, _CPU):
            images.add_(1)
            labels.add_(1)
    assert (data.train.images == before).all()
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert np.shares_memory(batches._images.numpy(), data.train.images)


@pytest.mark.gpu
def test_batches_on_a_gpu_are_those_of_the_cpu():
    data = _data(num_images=40, size=8, channels=3, pad=2, flip=True, cutout=3)
    gpu, cpu = TrainingBatches(data, 8, 1, torch.device("cuda")), TrainingBatches(data, 8, 1, _CPU)
    for step in (0, 3, 7):
        for on_gpu, on_cpu in zip(gpu.batch(step), cpu.batch(step), strict=True):
            assert on_gpu.is_cuda
            torch.testing.assert_close(on_gpu.cpu(), on_cpu)
