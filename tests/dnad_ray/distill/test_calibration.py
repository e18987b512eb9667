"""Calibration of logits: worked out by hand, and a temperature that is found again."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from dnad_ray.distill.calibration import calibration_error, calibration_of, fitted_temperature


def _logits(*shares):
    return torch.tensor([[math.log(share), math.log(1 - share)] for share in shares], dtype=torch.float64)


def test_error_by_hand():
    # Four images at 0.8, of which three are right: 0.05 apart. One at 0.6 that is wrong: 0.6 apart.
    logits = _logits(0.8, 0.8, 0.8, 0.2, 0.6)
    labels = torch.tensor([0, 0, 1, 1, 1])
    assert calibration_error(logits, labels) == pytest.approx((4 * 0.05 + 1 * 0.6) / 5)


def test_error_cancels_within_a_bin_and_not_between_bins():
    logits, labels = _logits(0.62, 0.75), torch.tensor([0, 1])  # right at 0.62, wrong at 0.75
    assert calibration_error(logits, labels, num_bins=2) == pytest.approx(abs(0.38 - 0.75) / 2)
    assert calibration_error(logits, labels, num_bins=4) == pytest.approx(abs(0.38 - 0.75) / 2), "0.75 ends a bin"
    assert calibration_error(logits, labels, num_bins=10) == pytest.approx((0.38 + 0.75) / 2)


def test_temperature_by_hand():
    # Always sure of 0.9, three of four right: at the best temperature sure of 0.75, log 9 / T = log 3.
    logits, labels = _logits(0.9, 0.9, 0.9, 0.9), torch.tensor([0, 0, 0, 1])
    assert fitted_temperature(logits, labels) == pytest.approx(2.0)
    found = calibration_of(logits.float(), labels)
    assert found.temperature == pytest.approx(2.0, rel=1e-5)
    assert found.nll == pytest.approx(-(3 * math.log(0.9) + math.log(0.1)) / 4, rel=1e-5)
    assert found.nll_fitted == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4, rel=1e-5)
    assert found.error == pytest.approx(0.15, rel=1e-5)
    assert found.num_images == 4


@pytest.mark.parametrize("temperature", [0.3, 1.0, 5.0])
def test_temperature_is_the_best_of_all(temperature):
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(3000, 5, dtype=torch.float64, generator=generator)
    labels = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    found = fitted_temperature(true * temperature, labels)
    assert found == pytest.approx(temperature, rel=0.1)
    best = F.cross_entropy(true * temperature / found, labels)
    assert all(best < F.cross_entropy(true * temperature / (found * factor), labels) for factor in (0.97, 1.03))


def test_temperature_has_ends():
    assert 1 / 64 <= fitted_temperature(_logits(0.9, 0.9), torch.tensor([0, 0])) < 0.1, "always right: no best one"
    assert fitted_temperature(_logits(0.9, 0.9), torch.tensor([1, 1])) == pytest.approx(64)
