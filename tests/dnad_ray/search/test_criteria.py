"""What goes first, by hand: groups, ties, what is allowed, and the running mean of what candidates are worth."""

from __future__ import annotations

import math

import pytest
import torch

from dnad_ray.search.criteria import WorthMean, chosen, group_worth
from dnad_ray.search.relaxation import Relaxation
from search_spaces.genotype import Edge
from search_spaces.supernet import Candidate

WORTH = [0.4, 0.1, 0.3, 0.1, 0.2]
ALONE = [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [(-3.0, []), (0.0, []), (0.01, [1]), (1.0, [1]), (1.5, [1, 3]), (3.0, [1, 3, 4]), (99.0, [0, 1, 2, 3, 4])],
)
def test_chosen_takes_the_least_worth_first_and_the_first_of_equals(allowed, expected):
    assert chosen(ALONE, ALONE, WORTH, allowed) == expected


def test_chosen_without_a_limit_takes_all_in_their_order():
    assert chosen([3, 0, 2], ALONE, WORTH, math.inf) == [0, 2, 3]


def test_chosen_takes_only_what_may_go():
    assert chosen([0, 2], ALONE, WORTH, 1.0) == [2]


def test_chosen_takes_all_of_a_group_or_none():
    # Three cells share two parameters: one deletion asked for takes three candidates, and not a fourth.
    groups, worth = [0, 1, 0, 1, 0, 1], [0.2, 0.1, 0.2, 0.1, 0.2, 0.1]
    assert chosen(range(6), groups, worth, 1.0) == [1, 3, 5]
    assert chosen(range(6), groups, worth, 3.0) == [1, 3, 5]
    assert chosen(range(6), groups, worth, 3.1) == [0, 1, 2, 3, 4, 5]


def _shared():
    candidates = [Candidate(cell, 0, Edge(name, 0)) for cell in range(2) for name in ("a", "b")]
    return Relaxation(candidates, ["a", "b", "a", "b"])


def test_group_worth_is_that_of_the_parameter():
    assert group_worth(_shared(), [7.0, 5.0]) == [7.0, 5.0, 7.0, 5.0]


def test_worth_is_the_mean_of_what_cells_say_together():
    worth = WorthMean(2, torch.device("cpu"))
    group = _shared().group
    # w g by cell: a 0.5 x 2 and 0.5 x -4, b 0.25 x 6 and 0.25 x 6: |1 - 2| = 1 and |1.5 + 1.5| = 3, of 2 in the mean.
    worth.add(torch.tensor([0.5, 0.25, 0.5, 0.25]), torch.tensor([2.0, 6.0, -4.0, 6.0]), group)
    assert worth.values.tolist() == [0.5, 1.5]
    worth.add(torch.tensor([0.5, 0.5, 0.5, 0.5]), torch.tensor([40.0, 0.0, 20.0, 0.0]), group)
    assert worth.values.tolist() == [1.25, 0.75], "(0.5 + 2) / 2 and (1.5 + 0) / 2: how large a step is does not matter"


def test_worth_of_steps_without_a_gradient_is_a_number():
    worth = WorthMean(2, torch.device("cpu"))
    worth.add(torch.ones(2), torch.zeros(2), torch.arange(2))
    assert worth.values.tolist() == [0.0, 0.0]


def test_worth_of_what_is_left_goes_on():
    worth = WorthMean(3, torch.device("cpu"))
    worth.add(torch.ones(3), torch.tensor([1.0, 2.0, 3.0]), torch.arange(3))
    worth.keep(torch.tensor([0, 2]))
    worth.add(torch.ones(2), torch.tensor([-2.0, 0.0]), torch.arange(2))
    assert worth.values.tolist() == [1.25, 0.75]  # (0.5 + 2) / 2 and (1.5 + 0) / 2


def test_worth_state_round_trip():
    worth, again = WorthMean(2, torch.device("cpu")), WorthMean(2, torch.device("cpu"))
    worth.add(torch.ones(2), torch.tensor([1.0, 3.0]), torch.arange(2))
    again.load_state_dict({name: value.clone() for name, value in worth.state_dict().items()})
    for entry in (worth, again):
        entry.add(torch.ones(2), torch.tensor([3.0, 0.0]), torch.arange(2))
        assert entry.values.tolist() == [1.25, 0.75]
