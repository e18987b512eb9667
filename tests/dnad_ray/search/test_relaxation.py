"""Architecture weights: values by hand, cutting down, and which candidates are the weakest."""

from __future__ import annotations

import pytest
import torch

from dnad_ray.search.relaxation import Relaxation
from dnad_ray.training.optimizers import cut_optimizer
from search_spaces.genotype import Edge
from search_spaces.supernet import Candidate


def _relaxation(*sizes, values=None):
    """One node after another with so many candidates; a new cell every two nodes."""
    candidates = [
        Candidate(node // 2, node % 2, Edge(f"op{i}", 0)) for node, size in enumerate(sizes) for i in range(size)
    ]
    relaxation = Relaxation(candidates)
    if values is not None:
        with torch.no_grad():
            relaxation.parameter.copy_(torch.tensor(values))
    return relaxation


def test_starts_at_two_and_uniform():
    relaxation = _relaxation(2, 4)
    assert relaxation.parameter.tolist() == [2.0] * 6
    assert relaxation.weights().tolist() == [0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_weights_by_hand():
    relaxation = _relaxation(3, 2, 1, values=[1.0, 3.0, -5.0, 0.0, 0.5, 7.0])
    assert relaxation.weights().tolist() == [0.25, 0.75, 0.0, 0.0, 1.0, 1.0]
    assert relaxation.num_nodes == 3


def test_weights_of_each_node_sum_to_one():
    generator = torch.Generator().manual_seed(0)
    relaxation = _relaxation(5, 2, 7, 1, values=[*torch.rand(15, generator=generator).tolist()])
    parts = relaxation.weights().split([5, 2, 7, 1])
    torch.testing.assert_close(torch.stack([part.sum() for part in parts]), torch.ones(4))


def test_weights_are_normalised_per_node_of_each_cell():
    candidates = [Candidate(0, 0, Edge("a", 0)), Candidate(1, 0, Edge("a", 0)), Candidate(1, 0, Edge("b", 0))]
    assert Relaxation(candidates).weights().tolist() == [1.0, 0.5, 0.5]


def test_weights_of_a_node_below_zero_are_zero_not_nan():
    relaxation = _relaxation(2, 2, values=[-1.0, 0.0, 1.0, 1.0])
    weights = relaxation.weights()
    assert weights.tolist() == [0.0, 0.0, 0.5, 0.5]
    (weights * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert relaxation.parameter.grad.isfinite().all()


def test_weights_gradient_against_finite_differences():
    relaxation = _relaxation(3, 1, 2, values=[1.0, 0.7, -0.4, 2.0, 1.5, 0.2]).double()

    def weights(values):
        return torch.func.functional_call(relaxation, {"parameter": values}, ())

    relaxation.forward = relaxation.weights
    assert torch.autograd.gradcheck(weights, [relaxation.parameter.detach().clone().requires_grad_()])


def test_weights_gradient_by_hand():
    relaxation = _relaxation(2, values=[1.0, 3.0])
    relaxation.weights()[0].backward()
    # w0 = a0 / (a0 + a1): derivatives a1 / s^2 and -a0 / s^2 with s = 4.
    assert relaxation.parameter.grad.tolist() == [3 / 16, -1 / 16]


def test_exactly_zero_is_reachable_by_steps():
    relaxation = _relaxation(2)
    optimizer = torch.optim.SGD(relaxation.parameters(), 2.0)
    for _ in range(10):
        optimizer.zero_grad()
        relaxation.weights()[0].backward()
        optimizer.step()
    assert relaxation.weights().tolist() == [0.0, 1.0]


def test_keep_slices_the_parameter():
    relaxation = _relaxation(3, 2, 2, values=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    relaxation.weights().sum().backward()
    old, values = relaxation.parameter, relaxation.parameter.data
    sliced = relaxation.keep([0, 2, 5, 6])  # the second node is gone
    assert sliced.parameter is relaxation.parameter is old
    assert sliced.rows.tolist() == [0, 2, 5, 6]
    assert relaxation.parameter.tolist() == [1.0, 3.0, 6.0, 7.0]
    assert relaxation.weights().tolist() == pytest.approx([1 / 4, 3 / 4, 6 / 13, 7 / 13])
    assert relaxation.num_nodes == 2
    assert relaxation.node.tolist() == [0, 0, 1, 1]
    assert (relaxation.parameter.is_leaf, relaxation.parameter.requires_grad, relaxation.parameter.grad) == (
        True,
        True,
        None,
    )
    assert values.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert list(relaxation.state_dict()) == ["parameter"]


def test_keep_and_its_rows_update_the_optimizer():
    relaxation = _relaxation(2, 2, values=[1.0, 2.0, 3.0, 4.0])
    other = torch.nn.Parameter(torch.zeros(4))
    optimizer = torch.optim.SGD([other, relaxation.parameter], 0.5, momentum=0.9)
    optimizer.zero_grad()
    (relaxation.parameter * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    optimizer.step()
    cut_optimizer(optimizer, [other, relaxation.parameter], [relaxation.keep([1, 3])])
    group = optimizer.param_groups[0]["params"]
    assert [entry is expected for entry, expected in zip(group, (other, relaxation.parameter), strict=True)] == [
        True
    ] * 2
    assert optimizer.state[relaxation.parameter]["momentum_buffer"].tolist() == [2.0, 4.0]
    # One step with a gradient of zero moves by the momentum that was kept: 0.5 * 0.9 * buffer.
    before = relaxation.parameter.tolist()
    relaxation.parameter.grad = torch.zeros(2)
    optimizer.step()
    assert relaxation.parameter.tolist() == pytest.approx([before[0] - 0.9, before[1] - 1.8])


def test_keep_continues_like_a_smaller_relaxation():
    """Momentum or not, the survivors of a node that lost nothing go on as if nothing had happened."""
    ours, theirs = _relaxation(2, 3), _relaxation(3)
    steps = [torch.optim.SGD(relaxation.parameters(), 0.1, 0.9) for relaxation in (ours, theirs)]
    target = torch.tensor([1.0, 2.0, 4.0])
    for number in range(6):
        for relaxation, optimizer in zip((ours, theirs), steps, strict=True):
            optimizer.zero_grad()
            (relaxation.weights()[-3:] * target).sum().backward()
            optimizer.step()
        if number == 2:
            cut_optimizer(steps[0], ours.parameters(), [ours.keep([2, 3, 4])])
    torch.testing.assert_close(ours.parameter, theirs.parameter)


def test_weakest_is_below_the_baseline():
    relaxation = _relaxation(3, 2)
    assert relaxation.weakest([0.004, 0.99, 0.006, 0.01, 0.99], 0.005) == [0]
    assert relaxation.weakest([0.004, 0.99, 0.006, 0.01, 0.99], 0.01) == [0, 2], "equal to the baseline stays"
    assert relaxation.weakest([0.3, 0.3, 0.4, 0.5, 0.5], 0.01) == []


def test_weakest_never_empties_a_node():
    relaxation = _relaxation(3, 1, 2)
    assert relaxation.weakest([0.1, 0.3, 0.2, 1.0, 0.4, 0.4], 0.9) == [0, 2, 5], "of equals the first one stays"
    assert relaxation.weakest([0.0] * 6, 0.9) == [1, 2, 5]


def test_weakest_keeps_the_best_candidate_that_computes_even_where_none_wins():
    candidates = [Candidate(0, 0, Edge(name, 0)) for name in ("none", "sep_conv_3x3", "skip_connect")]
    relaxation = Relaxation(candidates)
    assert relaxation.weakest([0.990, 0.006, 0.004], 0.01) == [2]
    # Once something has gone, positions move and `none` is still known for what it is.
    relaxation.keep([1, 2])
    assert relaxation.weakest([0.004, 0.996], 0.01) == [0]


def _edges(values):
    """Two edges into one node: `none`, a skip and a convolution on the first, `none` and a skip on the second."""
    names = (("none", 0), ("skip_connect", 0), ("nor_conv_3x3", 0), ("none", 1), ("skip_connect", 1))
    relaxation = Relaxation([Candidate(0, 1, Edge(*name)) for name in names], per_edge=True)
    with torch.no_grad():
        relaxation.parameter.copy_(torch.tensor(values))
    return relaxation


def test_weights_per_edge_sum_to_one_on_each():
    relaxation = _edges([1.0, 1.0, 2.0, 3.0, 1.0])
    assert relaxation.weights().tolist() == [0.25, 0.25, 0.5, 0.75, 0.25]
    assert (relaxation.num_nodes, relaxation.num_units) == (1, 2)
    assert relaxation.weights_of([2, 4]).tolist() == [0.0, 0.0, 1.0, 0.0, 1.0]
    assert relaxation.weights_of([2]).tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def test_weakest_per_edge_leaves_each_edge_one():
    relaxation = _edges([1.0, 1.0, 2.0, 3.0, 1.0])
    assert relaxation.weakest(relaxation.weights().tolist(), 0.9) == [0, 1, 4]
    relaxation.keep([2, 3])
    assert relaxation.weights().tolist() == [1.0, 1.0]
    assert relaxation.kept([1.0, 1.0]) == {0, 1}, "nothing more can go"


def test_weakest_per_edge_keeps_what_computes_where_none_wins_on_all_edges():
    relaxation = _edges([3.0, 1.0, 0.5, 3.0, 0.9])
    # `none` on both edges, and of what computes the strongest: 0.9 of 3.9 is more than 1 of 4.5.
    assert relaxation.kept(relaxation.weights().tolist()) == {0, 3, 4}


def test_kept_by_another_worth_than_the_weight():
    relaxation = _edges([3.0, 1.0, 0.5, 3.0, 0.9])
    assert relaxation.kept([0.0, 1.0, 2.0, 0.0, 3.0]) == {2, 4}
