"""The states of a cell: what several edges read is computed once, and rightly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from search_spaces.genotype import Edge
from search_spaces.kernels.pixels import halves
from search_spaces.kernels.states import States, bank_key, edge_key, former_name, present_name
from search_spaces.ops import Identity, Pool


def _states(*tensors, shared=None):
    states = States(nn.ModuleDict(shared or {}))
    for tensor in tensors:
        states.append(tensor)
    return states


def _tensor(seed=0, side=4):
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_edge_key_tells_edges_of_a_node_apart():
    edges = [Edge("skip_connect", 0), Edge("skip_connect", 1), Edge("max_pool_3x3", 0), Edge("skip_connect", 10)]
    assert edge_key(edges[0]) == "skip_connect_from_0"
    assert len({edge_key(edge) for edge in edges}) == 4


def test_names_of_older_files_are_those_of_now():
    for former, present in {
        "0 skip_connect": "skip_connect_from_0",
        "12 sep_conv_3x3 3": "sep_conv_3x3_from_12_3",
        "sep_conv_5x5 2": "sep_conv_5x5_stride_2",
    }.items():
        name = f"cells.4.nodes.1.own.{former}.norms.0.weight"
        assert present_name(name) == f"cells.4.nodes.1.own.{present}.norms.0.weight"
        assert present_name(present_name(name)) == present_name(name)
        if not former.startswith("sep"):
            assert former_name(present_name(name)) == name
    for name in ("stem.conv.weight", "model.layer from 1.weight", "a b.weight", "0 .weight", " 0 conv"):
        assert present_name(name) == name
    assert edge_key(Edge("sep_conv_3x3", 12), 3) == "sep_conv_3x3_from_12_3"
    assert bank_key("sep_conv_5x5", 2) == "sep_conv_5x5_stride_2"


def test_raw_states_are_those_appended():
    first, second = _tensor(0), _tensor(1)
    states = _states(first, None, second)
    assert states.raw(0) is first
    assert states.raw(2) is second


def test_everything_is_computed_once(monkeypatch):
    calls = []

    def counted(x, *arguments, function=F.relu):
        calls.append(x)
        return function(x, *arguments)

    monkeypatch.setattr(F, "relu", counted)
    tensors = _tensor(0), _tensor(1)
    states = _states(*tensors)
    for _ in range(2):
        torch.testing.assert_close(states.rectified(0), tensors[0].clamp_min(0))
        torch.testing.assert_close(states.side_by_side([1, 0]), torch.cat(tensors[::-1], 1).clamp_min(0))
        torch.testing.assert_close(states.halves(1), halves(tensors[1].clamp_min(0)))
    assert [id(x) for x in calls] == [id(tensors[0]), id(tensors[1])]
    assert states.side_by_side([1, 0]) is states.side_by_side([1, 0])
    assert states.halves(1) is states.halves(1)
    assert states.side_by_side([0, 1]) is not states.side_by_side([1, 0])
    assert states.halves(0) is not states.halves(1)


def test_states_stay_as_they_are():
    tensors = _tensor(0), _tensor(1)
    before = [tensor.clone() for tensor in tensors]
    states = _states(*tensors, shared={"max_pool_3x3_from_0": Pool(3, 1, True, average=False)})
    states.rectified(0)
    states.side_by_side([0, 1])
    states.halves(1)
    states.shared(Edge("max_pool_3x3", 0))
    assert all(map(torch.equal, tensors, before))


def test_shared_operation_reads_the_raw_state_once():
    calls = []
    pool, skip = Pool(3, 1, False, average=True), Identity()
    for module in (pool, skip):
        module.register_forward_hook(lambda module, inputs, _: calls.append((module, inputs[0])))
    tensors = _tensor(0), _tensor(1)
    states = _states(
        *tensors, shared={"avg_pool_3x3_from_0": pool, "avg_pool_3x3_from_1": pool, "skip_connect_from_0": skip}
    )
    first = states.shared(Edge("avg_pool_3x3", 0))
    assert states.shared(Edge("avg_pool_3x3", 0)) is first
    torch.testing.assert_close(first, F.avg_pool2d(tensors[0], 3, 1, 1, count_include_pad=False))
    torch.testing.assert_close(states.shared(Edge("skip_connect", 0)), tensors[0])
    torch.testing.assert_close(states.shared(Edge("avg_pool_3x3", 1)), pool(tensors[1]))
    assert [(module, id(x)) for module, x in calls[:3]] == [
        (pool, id(tensors[0])),
        (skip, id(tensors[0])),
        (pool, id(tensors[1])),
    ]
    assert len(calls) == 4  # the last is the test's own
