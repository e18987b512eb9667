"""Losses on relations within a batch: values by hand, finite differences, sizes that differ."""

from __future__ import annotations

import math

import pytest
import torch

from dnad_ray.distill.losses import angle_imitation, distance_imitation, similarity_imitation


def _double(*rows):
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_similarity_by_hand():
    # Inner products ((1, 0), (0, 4)): rows of unit length are those of the identity. Teacher: all equal, 1 / sqrt 2.
    student, teacher = _double([1.0, 0.0], [0.0, 2.0]), _double([1.0], [1.0])
    half = math.sqrt(0.5)
    assert similarity_imitation(student, teacher).item() == pytest.approx((2 * (1 - half) ** 2 + 2 * half**2) / 4)


def test_distance_by_hand():
    # Student on a line at 0, 1, 3: distances 1, 3, 2 with mean 2. Teacher at 0, 1, 2: 1, 2, 1 with mean 4/3.
    student, teacher = _double([0.0], [1.0], [3.0]), _double([0.0, 0.0], [1.0, 0.0], [2.0, 0.0])
    differences = [0.5 - 0.75, 1.5 - 1.5, 1.0 - 0.75]
    assert distance_imitation(student, teacher).item() == pytest.approx(sum(d * d / 2 for d in differences) / 3)


def test_distance_grows_linearly_beyond_one():
    # Distances 1, 9, 10 over 20/3 against three equal ones: 0.15, 1.35, 1.5 against 1.
    student = _double([0.0], [1.0], [10.0])
    teacher = _double([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    expected = (0.85**2 / 2 + 0.35**2 / 2 + 0.5**2 / 2) / 3
    assert distance_imitation(student, teacher).item() == pytest.approx(expected)
    far = _double(*([0.0] for _ in range(5)), [1.0])
    even = torch.eye(6, dtype=torch.float64)
    # Five of 15 distances are 1, their mean 1/3: 3 against 1 is a difference of 2, the others one of 1 from below.
    assert distance_imitation(far, even).item() == pytest.approx((5 * 1.5 + 10 * 0.5) / 15, rel=1e-4)


def test_angle_by_hand():
    # A right angle at the second image and 45 degrees at the others, against three in a line: 180, 0, 0 degrees.
    student, teacher = _double([1.0, 0.0], [0.0, 0.0], [0.0, 1.0]), _double([0.0], [1.0], [2.0])
    slant = math.cos(math.pi / 4)
    # Of 27 cosines, the 9 without a triangle are equal; those of a direction with itself are 1 on both sides.
    middle, others = 2 * (0 - -1) ** 2 / 2, 4 * (slant - 1) ** 2 / 2
    assert angle_imitation(student, teacher).item() == pytest.approx((middle + others) / 27)


@pytest.mark.parametrize("loss", [distance_imitation, angle_imitation])
def test_relations_ignore_scale_place_and_turning(loss):
    teacher = torch.randn(5, 3, dtype=torch.float64)
    turned, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))
    assert loss(7 * teacher @ turned + 2, teacher).item() == pytest.approx(0, abs=1e-12)
    assert loss(torch.randn(5, 4, dtype=torch.float64), teacher).item() > 1e-3


@pytest.mark.parametrize("loss", [similarity_imitation, distance_imitation, angle_imitation])
def test_gradients_against_finite_differences(loss):
    student = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(4, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda embeddings: loss(embeddings, teacher), [student])


@pytest.mark.parametrize("loss", [similarity_imitation, distance_imitation, angle_imitation])
def test_equal_images_have_a_gradient_that_is_a_number(loss):
    student = torch.ones(3, 2, dtype=torch.float64)
    student[2] = 4
    student.requires_grad_()
    loss(student, torch.randn(3, 2, dtype=torch.float64)).backward()
    assert student.grad.isfinite().all()
