"""Sparsity and the loss of search by deleting, by hand and by finite differences."""

from __future__ import annotations

import math

import pytest
import torch

from dnad_ray.search.losses import RELEASE_SPARSITY, added_loss, dense_sparsity, shrinking_loss, sparsity
from search_spaces.space import SearchSpace


def _tensor(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_sparsity_by_hand():
    # log(1 + 50 w) for w = 0, 0.02, 0.1, 1
    assert sparsity(_tensor(0.0, 0.02, 0.1, 1.0)).item() == pytest.approx(math.log(2) + math.log(6) + math.log(51))
    assert sparsity(_tensor(0.0, 0.0)).item() == 0


def test_sparsity_of_the_dense_release():
    # 8 cells, node j has 3 (j + 2) candidates of equal weight.
    weights = torch.cat([torch.full((3 * (j + 2),), 1 / (3 * (j + 2))) for _ in range(8) for j in range(4)])
    expected = 8 * sum(3 * (j + 2) * math.log(1 + 50 / (3 * (j + 2))) for j in range(4))
    assert sparsity(weights).item() == pytest.approx(expected, rel=1e-5)
    assert expected > 250, "the release stops below 250"


def test_sparsity_is_largest_where_weights_are_equal():
    assert sparsity(_tensor(0.5, 0.5)) > sparsity(_tensor(0.6, 0.4)) > sparsity(_tensor(1.0, 0.0))


def test_sparsity_pushes_small_weights_most():
    weights = _tensor(0.0, 0.02, 1.0)
    sparsity(weights).backward()
    torch.testing.assert_close(weights.grad, torch.tensor([50.0, 25.0, 50 / 51], dtype=torch.float64))


def test_shrinking_loss_by_hand():
    # S = log 51; 2 (1 + 0.1 S) + 0.1 * 0.5 * S
    loss, weights = _tensor(2.0)[0], _tensor(1.0, 0.0)
    expected = 2 + 0.25 * math.log(51)
    assert shrinking_loss(loss, weights, 0.1, 0.5).item() == pytest.approx(expected)


def test_shrinking_loss_without_gamma_is_the_loss():
    loss, weights = _tensor(2.0)[0], _tensor(0.3, 0.7)
    total = shrinking_loss(loss, weights, 0.0, 0.5)
    assert total.item() == 2
    assert torch.autograd.grad(total, weights)[0].tolist() == [0, 0]


def test_shrinking_loss_gradients_by_hand():
    loss, weights = _tensor(2.0)[0], _tensor(0.02, 1.0)
    by_loss, by_weights = torch.autograd.grad(shrinking_loss(loss, weights, 0.1, 0.5), (loss, weights))
    assert by_loss.item() == pytest.approx(1 + 0.1 * (math.log(2) + math.log(51)))
    # gamma (L + mu) * 50 / (1 + 50 w)
    assert by_weights.tolist() == pytest.approx([0.1 * 2.5 * 25, 0.1 * 2.5 * 50 / 51])


def test_gradients_against_finite_differences():
    weights = _tensor(0.01, 0.3, 0.69, 0.0)
    assert torch.autograd.gradcheck(sparsity, [weights])
    assert torch.autograd.gradcheck(lambda loss, w: shrinking_loss(loss[0], w, 0.3, 0.7), [_tensor(1.3), weights])


def test_dense_sparsity_by_hand():
    # 3 cells of 2 nodes: 2 sources x 2 operations = 4 candidates at 1/4, and 3 x 2 = 6 at 1/6.
    space = SearchSpace(operations=("sep_conv_3x3", "skip_connect"), num_cells=3, num_nodes=2)
    expected = 3 * (4 * math.log(1 + 50 / 4) + 6 * math.log(1 + 50 / 6))
    assert dense_sparsity(space) == pytest.approx(expected, rel=1e-12)


def test_dense_sparsity_per_edge_by_hand():
    # 3 cells of 2 nodes: 2 + 3 edges, each with 2 candidates at 1/2.
    space = SearchSpace(operations=("sep_conv_3x3", "skip_connect"), num_cells=3, num_nodes=2, derivation="edges")
    assert dense_sparsity(space) == pytest.approx(3 * 5 * 2 * math.log(1 + 50 / 2), rel=1e-12)


def test_release_sparsity_is_that_of_its_dense_supernet():
    space = SearchSpace(operations=("sep_conv_3x3", "skip_connect", "dil_conv_5x5"), num_cells=8, num_nodes=4)
    assert dense_sparsity(space) == pytest.approx(RELEASE_SPARSITY, abs=0.05)


def test_added_loss_by_hand():
    # S = log 51; 2 + 0.1 (2 + 0.5) 3 S
    loss, weights = _tensor(2.0)[0], _tensor(1.0, 0.0)
    assert added_loss(loss, weights, 0.1, 0.5, 3.0).item() == pytest.approx(2 + 0.75 * math.log(51))


def test_added_loss_leaves_the_gradient_of_the_task_alone():
    loss, weights = _tensor(2.0)[0], _tensor(0.02, 1.0)
    by_loss, by_weights = torch.autograd.grad(added_loss(loss, weights, 0.1, 0.5, 3.0), (loss, weights))
    assert by_loss.item() == 1
    # gamma (L + mu) scale * 50 / (1 + 50 w), as strong as in the paper's form but for the scale
    assert by_weights.tolist() == pytest.approx([0.1 * 2.5 * 3 * 25, 0.1 * 2.5 * 3 * 50 / 51])
