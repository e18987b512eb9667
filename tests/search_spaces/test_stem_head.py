"""Stems and classifier: shapes, and values of the simplest ones."""

from __future__ import annotations

import pytest
import torch

from search_spaces.stem_head import STEMS, CifarStem, Classifier, ImageNetStem


def test_stems_by_name():
    assert {"cifar": CifarStem, "imagenet": ImageNetStem} == STEMS


def test_cifar_stem_keeps_the_resolution():
    stem = CifarStem(1, 4)
    older, newer = stem(torch.randn(2, 1, 7, 5))
    assert older is newer
    assert older.shape == (2, 12, 7, 5)
    assert stem.out_channels == (12, 12)
    assert not stem.older_is_larger


def test_cifar_stem_is_a_convolution_and_a_batch_norm():
    stem = CifarStem(3, 1).double()
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64)
    output = torch.nn.functional.conv2d(x, stem.conv.weight, padding=1)
    mean, var = output.mean((0, 2, 3), keepdim=True), output.var((0, 2, 3), unbiased=False, keepdim=True)
    torch.testing.assert_close(stem(x)[0], (output - mean) / (var + 1e-5).sqrt())


@pytest.mark.parametrize(("side", "older_side", "newer_side"), [(32, 8, 4), (64, 16, 8), (224, 56, 28), (33, 9, 5)])
def test_imagenet_stem_divides_by_four_and_eight(side, older_side, newer_side):
    stem = ImageNetStem(3, 4)
    older, newer = stem(torch.randn(1, 3, side, side))
    assert older.shape == (1, 4, older_side, older_side)
    assert newer.shape == (1, 4, newer_side, newer_side)
    assert stem.out_channels == (4, 4)
    assert stem.older_is_larger


def test_imagenet_stem_odd_width():
    assert [output.shape[1] for output in ImageNetStem(3, 5)(torch.randn(2, 3, 32, 32))] == [5, 5]


def test_classifier_is_linear_in_the_mean():
    classifier = Classifier(2, 3)
    features = torch.tensor([[1.0, 2, 3, 6], [-1, 0, 0, 1]]).reshape(1, 2, 2, 2)
    expected = 3 * classifier.linear.weight[:, 0] + classifier.linear.bias
    torch.testing.assert_close(classifier(features), expected[None])
