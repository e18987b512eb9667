"""Losses on maps: values by hand, finite differences, and what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch

from dnad_ray.distill.losses import attention_imitation, factor_imitation, principal_factors, standardised_error


def _maps(*channels):
    """One image of the given channels, each a row of pixels."""
    return torch.tensor(channels, dtype=torch.float64)[None, :, None, :]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_standardised_error_by_hand():
    # (1, 9) and (5, -5) are -1, 1 and 1, -1 once standardised: both pixels differ by 2.
    assert standardised_error(_maps([1.0, 9.0]), _maps([5.0, -5.0])).item() == pytest.approx(4, rel=1e-5)
    assert standardised_error(_maps([1.0, 9.0]), _maps([-2.0, 0.0])).item() == pytest.approx(0, abs=1e-9)


def test_attention_by_hand():
    # Student: 1 + 8 = 9 and 16 - 4 = 12 squared sums, (3, 4) / 5 of unit length. Teacher: (0, 1).
    student = _maps([1.0, 0.0], [8**0.5, 12**0.5])
    teacher = _maps([0.0, 7.0])
    assert attention_imitation(student, teacher).item() == pytest.approx(0.6**2 + 0.2**2)


def test_attention_is_two_for_maps_that_share_no_pixel_and_zero_for_the_same_places():
    left, right = _maps([5.0, 0.0]), _maps([0.0, -3.0], [0.0, 1.0])
    assert attention_imitation(left, right).item() == pytest.approx(2)
    assert attention_imitation(left, _maps([-0.1, 0.0], [2.0, 0.0])).item() == pytest.approx(0)


def test_factor_by_hand():
    # Unit lengths: (3, 4) / 5 against (0, 1), 0.6 + 0.2 in the 1-norm, over the root of 2 entries.
    assert factor_imitation(_maps([3.0, 4.0]), _maps([0.0, 2.0])).item() == pytest.approx(0.8 / math.sqrt(2))


def test_factor_is_at_most_two_whatever_the_size():
    factors = torch.randn(3, 4, 5, 5, dtype=torch.float64).sign()
    assert factor_imitation(factors, -2 * factors).item() == pytest.approx(2)
    assert factor_imitation(factors, 3 * factors).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("loss", [attention_imitation, factor_imitation])
def test_losses_are_the_mean_over_the_batch(loss):
    student, teacher = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64).unbind(0)
    alone = [loss(student[i : i + 1], teacher[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(loss(student, teacher), torch.stack(alone).mean())


@pytest.mark.parametrize("loss", [standardised_error, attention_imitation, factor_imitation])
def test_gradients_against_finite_differences(loss):
    student = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda maps: loss(maps, teacher), [student])


def test_principal_factors_by_hand():
    # Pixels on the line (3, -4) t: the direction of all variance, its largest entry positive.
    weight = principal_factors(_maps([3.0, -3.0, 6.0], [-4.0, 4.0, -8.0]), 1)
    torch.testing.assert_close(weight, torch.tensor([[[[-0.6]], [[0.8]]]], dtype=torch.float64))


def test_principal_factors_lose_least_of_all_projections():
    features = torch.randn(6, 5, 3, 3, dtype=torch.float64) * torch.tensor([5.0, 1, 3, 0.1, 0.1])[:, None, None]
    centred = features - features.mean((0, 2, 3), keepdim=True)

    def lost(weight):
        directions = weight[:, :, 0, 0]
        factors = torch.einsum("mc,nchw->nmhw", directions, centred)
        return (centred - torch.einsum("mc,nmhw->nchw", directions, factors)).pow(2).sum()

    best = principal_factors(features, 2)
    assert best.shape == (2, 5, 1, 1)
    for _ in range(20):
        other, _ = torch.linalg.qr(torch.randn(5, 2, dtype=torch.float64))
        assert lost(best) < lost(other.T[..., None, None])


def test_principal_factors_of_one_channel():
    assert principal_factors(torch.randn(2, 1, 2, 2), 1).tolist() == [[[[1.0]]]]
