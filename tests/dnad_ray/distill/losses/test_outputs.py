"""Decoupled KD by hand, against plain KD, and by finite differences; plain KD is tested in test_distill."""

from __future__ import annotations

import math

import pytest
import torch

from dnad_ray.distill.losses import decoupled_imitation, logit_imitation


def _double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _logits(*probabilities):
    return _double([math.log(value) for value in probabilities])


def test_decoupled_by_hand():
    # Label 0. Teacher: 1/2 against 1/2, the others 3/4 to 1/4. Student: 1/4 against 3/4, the others 1/2 to 1/2.
    teacher, student = _logits(1 / 2, 3 / 8, 1 / 8), _logits(1 / 4, 3 / 8, 3 / 8)
    apart = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    among = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = decoupled_imitation(student, teacher, torch.tensor([0]), 1.0, target=2.0, rest=3.0)
    assert loss.item() == pytest.approx(2 * apart + 3 * among)


def test_decoupled_softens_both_parts_and_keeps_the_size_of_the_gradient():
    teacher, student = _logits(1 / 2, 3 / 8, 1 / 8), _logits(1 / 4, 3 / 8, 3 / 8)
    once = decoupled_imitation(student, teacher, torch.tensor([2]), 1.0)
    assert decoupled_imitation(3 * student, 3 * teacher, torch.tensor([2]), 3.0).item() == pytest.approx(
        9 * once.item()
    )


@pytest.mark.parametrize("label", [0, 1, 2])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_decoupled_with_the_teachers_own_factors_is_plain_kd(label, temperature):
    """Zhao et al., equation 7: KL = KL(b) + (1 - p of the label) KL(q), for each image."""
    student, teacher = torch.randn(2, 1, 3, dtype=torch.float64).unbind(0)
    rest = 1 - (teacher / temperature).softmax(1)[0, label].item()
    loss = decoupled_imitation(student, teacher, torch.tensor([label]), temperature, target=1.0, rest=rest)
    assert loss.item() == pytest.approx(logit_imitation(student, teacher, temperature).item())


def test_decoupled_is_the_mean_over_the_batch_and_zero_for_equal_logits():
    student, teacher = torch.randn(2, 5, 4, dtype=torch.float64).unbind(0)
    labels = torch.tensor([0, 3, 1, 2, 2])
    alone = [decoupled_imitation(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], 2.0) for i in range(5)]
    torch.testing.assert_close(decoupled_imitation(student, teacher, labels, 2.0), torch.stack(alone).mean())
    assert decoupled_imitation(teacher, teacher, labels, 2.0).item() == pytest.approx(0, abs=1e-12)


def test_decoupled_of_a_teacher_that_is_sure_is_a_number():
    teacher, student = _double([200.0, 0.0, 1.0]), _double([-200.0, 2.0, 0.0]).requires_grad_()
    loss = decoupled_imitation(student, teacher, torch.tensor([0]), 1.0)
    loss.backward()
    assert math.isfinite(loss.item())
    assert student.grad.isfinite().all()


def test_decoupled_gradient_against_finite_differences():
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher, labels = torch.randn(3, 4, dtype=torch.float64), torch.tensor([1, 0, 3])
    assert torch.autograd.gradcheck(lambda logits: decoupled_imitation(logits, teacher, labels, 2.5), [student])
