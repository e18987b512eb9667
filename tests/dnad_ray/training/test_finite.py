"""One rule for losses that are no numbers: which step was the first, asked once for many steps."""

from __future__ import annotations

import math

import pytest
import torch

from dnad_ray.errors import NonFiniteLossError
from dnad_ray.training.finite import FiniteWatch, check_finite

CPU = torch.device("cpu")


def watched(*steps):
    watch = FiniteWatch(CPU)
    for loss, norm in steps:
        watch.note(torch.tensor(loss), torch.tensor(norm))
    return watch


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("is_gradient", [False, True])
def test_watch_counts_the_steps_before_the_first_bad_one(value, is_gradient):
    bad = (1.0, value) if is_gradient else (value, 1.0)
    assert float(watched((2.0, 3.0), (0.0, 0.0), bad, (1.0, 1.0)).num_good) == 2
    assert float(watched((2.0, 3.0), (0.0, 0.0), (1e30, 1e30)).num_good) == 3


def test_watch_remembers_beyond_a_look():
    watch = watched((1.0, 1.0), (math.nan, 1.0))
    watch.restart()
    watch.note(torch.tensor(1.0), torch.tensor(1.0))
    assert float(watch.num_good) == 0


def test_watch_is_not_deaf_to_half_and_double_precision():
    for kind in (torch.bfloat16, torch.float64):
        watch = FiniteWatch(CPU)
        watch.note(torch.tensor(1.0, dtype=kind), torch.tensor(1.0))
        watch.note(torch.tensor(math.inf, dtype=kind), torch.tensor(1.0))
        assert float(watch.num_good) == 1


def check(num_good, num_steps, loss, step=20):
    check_finite(num_good, num_steps, loss, step=step, steps_per_epoch=8, what="loss", advice="learning_rate")


def test_check_passes_what_is_finite():
    check(5, 5, 1.0)


def test_check_names_the_first_bad_step_and_its_epoch():
    # Of the steps 16 to 19 two were good: 18 is the first bad one, in the third epoch of 8 steps.
    with pytest.raises(NonFiniteLossError, match=r"^the loss became nan at step 18 \(epoch 3\); lower learning_rate$"):
        check(2, 4, math.nan)
    with pytest.raises(NonFiniteLossError, match=r"the loss became inf at step 19 \(epoch 3\)"):
        check(3, 4, math.inf)
    with pytest.raises(NonFiniteLossError, match=r"the gradient of the loss became nan at step 19 "):
        check(3, 4, 0.5)
    # A loss that only another process found to be none is one of the last step, for all that is known here.
    with pytest.raises(NonFiniteLossError, match=r"the loss became nan at step 19 "):
        check(4, 4, math.nan)
