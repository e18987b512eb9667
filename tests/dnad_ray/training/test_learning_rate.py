"""Learning rates: the cosine of teachers has the bits that torch's own schedule has."""

from __future__ import annotations

import pytest
import torch

from dnad_ray.training.learning_rate import cosine_rates


@pytest.mark.parametrize(("peak", "num_steps"), [(1e-3, 1), (1e-3, 7), (0.025, 1000), (3e-4, 391)])
def test_cosine_has_the_bits_of_torch(peak, num_steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], peak)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    expected = []
    for _ in range(num_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert list(cosine_rates(peak, num_steps)) == expected
