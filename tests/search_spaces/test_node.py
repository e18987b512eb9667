"""Nodes: sums over edges, with and without weights, and what is left of them when edges go."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import search_spaces.kernels.bank
from search_spaces.genotype import NONE, Edge
from search_spaces.kernels.bank import ChainBank, ReductionBank
from search_spaces.kernels.states import States, bank_key, edge_key
from search_spaces.node import PlainNode, WeightedNode, compute_ahead, drop
from search_spaces.ops import CHAINS, OPERATIONS

CONV, DIL, SKIP, POOL, ROW = "sep_conv_3x3", "dil_conv_5x5", "skip_connect", "max_pool_3x3", "conv_7x1_1x7"
NAMES = [name for name in OPERATIONS if name not in (NONE, "noise")]  # noise is no function of the state
C = 4


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def _edges(*edges):
    return [Edge(operation, source) for operation, source in edges]


def _node(edges, is_reduction=False, kind=WeightedNode):
    shared = nn.ModuleDict()
    node = kind(edges, C, is_reduction, shared)
    return node.double(), shared.double()


def _tensors(is_reduction=False, memory_format=torch.contiguous_format):
    """Two inputs and, as after a first node, a third state that a reduction cell has halved."""
    generator = torch.Generator().manual_seed(1)
    sides = (7, 7, 4 if is_reduction else 7)
    tensors = [torch.randn(3, C, side, side, generator=generator, dtype=torch.float64) for side in sides]
    return [tensor.contiguous(memory_format=memory_format).requires_grad_() for tensor in tensors]


def _states(tensors, shared):
    states = States(shared)
    for tensor in tensors:
        states.append(tensor)
    return states


def _module_of(node, shared, edge, is_reduction):
    """The operation of one edge as a module of its own, with the weights that it has in the node."""
    stride = 2 if is_reduction and edge.source < 2 else 1
    module, key = OPERATIONS[edge.operation](C, stride, True).double(), edge_key(edge)
    if key in node.own or key in shared:
        module.load_state_dict((node.own[key] if key in node.own else shared[key]).state_dict())
        return module
    key = bank_key(edge.operation, stride)
    bank, position = node.banks[key], node.members[key].index(edge)
    rows = slice(position * C, (position + 1) * C)
    with torch.no_grad():
        if isinstance(bank, ReductionBank):
            module.even.weight.copy_(bank.pointwise[0][rows, :, None, None][: C // 2])
            module.odd.weight.copy_(bank.pointwise[0][rows, :, None, None][C // 2 :])
        else:
            for layer, (depthwise, pointwise) in enumerate(zip(module.depthwise, module.pointwise, strict=True)):
                depthwise.weight.copy_(bank.depthwise[layer][rows])
                pointwise.weight.copy_(bank.pointwise[layer][rows, :, None, None])
    return module


def _close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("is_reduction", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_weighted_node_is_the_operation_times_its_weight(name, is_reduction, memory_format):
    edge = Edge(name, 1)
    node, shared = _node([edge], is_reduction)
    module = _module_of(node, shared, edge, is_reduction)
    results = []
    for is_ours in (True, False):
        tensors = _tensors(is_reduction, memory_format)
        weight = torch.tensor([0.37], dtype=torch.float64, requires_grad=True)
        if is_ours:
            output = node(_states(tensors, shared), weight)
        else:
            output = weight * module(F.relu(tensors[1]) if module.reads_relu else tensors[1])
        output.backward(torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output))
        results.append([output, tensors[1].grad, weight.grad])
    for ours, theirs in zip(*results, strict=True):
        _close(ours, theirs)


# In an order that neither the banks nor the terms have, chains of a kind apart from each other.
MIXED = _edges(
    (SKIP, 1), (DIL, 0), (POOL, 2), (CONV, 2), (NONE, 0), (ROW, 1), (CONV, 0), (SKIP, 2), (DIL, 1), (SKIP, 0)
)


# Up to 100 numbers: banks of one candidate are unfolded, those of two (and strided ones of one) are not.
@pytest.mark.parametrize("limit", [0, 100, 10**9], ids=["folded", "mixed", "unfolded"])
@pytest.mark.parametrize("is_reduction", [False, True])
def test_weights_are_those_of_the_edges_in_their_order(is_reduction, limit, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "UNFOLDED_UP_TO", limit)
    node, shared = _node(MIXED, is_reduction)
    tensors, weights = _tensors(is_reduction), torch.linspace(0.1, 1, len(MIXED), dtype=torch.float64).requires_grad_()
    output = node(_states(tensors, shared), weights)
    upstream = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view_as(output)
    output.backward(upstream)
    expected, derivatives = torch.zeros_like(output), []
    for edge, weight in zip(MIXED, weights.tolist(), strict=True):
        if edge.operation == NONE:
            derivatives.append(0.0)
            continue
        module = _module_of(node, shared, edge, is_reduction)
        entry = module(F.relu(tensors[edge.source]) if module.reads_relu else tensors[edge.source]).detach()
        expected += weight * entry
        derivatives.append((upstream * entry).sum().item())
    _close(output, expected)
    _close(weights.grad, torch.tensor(derivatives, dtype=torch.float64))


def test_chains_of_a_kind_and_stride_stand_in_one_bank():
    node, shared = _node(MIXED, True)
    assert {key: [edge.source for edge in edges] for key, edges in node.members.items()} == {
        "dil_conv_5x5_stride_2": [0, 1],
        "sep_conv_3x3_stride_1": [2],
        "sep_conv_3x3_stride_2": [0],
        "skip_connect_stride_2": [1, 0],
    }
    assert node.terms == _edges((POOL, 2), (ROW, 1), (SKIP, 2))
    assert set(node.own) == {"conv_7x1_1x7_from_1"}
    assert set(shared) == {"max_pool_3x3_from_2", "skip_connect_from_2"}
    kinds = {key: type(bank) for key, bank in node.banks.items()}
    assert kinds == {**dict.fromkeys(node.members, ChainBank), "skip_connect_stride_2": ReductionBank}
    assert (node.banks["dil_conv_5x5_stride_2"].stride, node.banks["sep_conv_3x3_stride_1"].stride) == (2, 1)
    assert node.banks["dil_conv_5x5_stride_2"].chain is CHAINS[DIL]


def test_plain_node_is_the_plain_sum():
    node, shared = _node(MIXED, False, PlainNode)
    tensors = _tensors()
    states = _states(tensors, shared)
    expected = 0
    for edge in MIXED:
        if edge.operation != NONE:
            key = edge_key(edge)
            module = node.own[key] if key in node.own else shared[key]
            expected = expected + module(F.relu(tensors[edge.source]) if module.reads_relu else tensors[edge.source])
    _close(node(states, None), expected)
    assert set(node.own) == {edge_key(edge) for edge in MIXED if edge.operation in (CONV, DIL, ROW)}
    assert set(shared) == {"max_pool_3x3_from_2", *(f"skip_connect_from_{source}" for source in range(3))}


@pytest.mark.parametrize("edges", [[], _edges((NONE, 0), (NONE, 1))])
def test_node_to_which_nothing_is_added_is_none(edges):
    states = _states(_tensors(), nn.ModuleDict())
    assert _node(edges)[0](states, torch.full((len(edges),), 0.5, dtype=torch.float64)) is None
    assert _node(edges, kind=PlainNode)[0](states, None) is None


@pytest.mark.parametrize("limit", [0, 10**9], ids=["folded", "unfolded"])
@pytest.mark.parametrize("is_reduction", [False, True])
def test_keep_leaves_what_the_rest_computes_as_it_was(is_reduction, limit, monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "UNFOLDED_UP_TO", limit)
    kept = [0, 3, 4, 5, 8, 9]
    node, shared = _node(MIXED, is_reduction)
    weights = torch.linspace(0.1, 1, len(MIXED), dtype=torch.float64)
    zeroed = weights.clone()
    zeroed[[position for position in range(len(MIXED)) if position not in kept]] = 0
    expected = copy.deepcopy(node)(_states(_tensors(is_reduction), shared), zeroed)
    edges = [MIXED[position] for position in kept]
    whole = dict(node.banks.items())
    sliced = node.keep(edges)
    assert node.edges == tuple(edges)
    _close(node(_states(_tensors(is_reduction), shared), weights[kept]), expected)
    # The second of the two dilated convolutions is left, and of the strided skips both; one bank is gone.
    gone = {"sep_conv_3x3_stride_2"} if is_reduction else set()
    assert dict(node.banks.items()) == {key: bank for key, bank in whole.items() if key not in gone}
    shrunken = [
        whole[f"dil_conv_5x5_stride_{1 + is_reduction}"],
        *([] if is_reduction else [whole["sep_conv_3x3_stride_1"]]),
    ]
    expected_ids = {id(parameter) for bank in shrunken for parameter in bank.parameters()}
    assert {id(parameter) for parameter, _ in sliced} == expected_ids
    assert len(sliced) == len(expected_ids)


def test_keep_of_everything_cuts_nothing():
    node, _ = _node(MIXED)
    before = copy.deepcopy(node.state_dict())
    assert node.keep(MIXED) == []
    after = node.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in after)


def test_order_of_weights_is_no_state_but_moves_with_the_node():
    node, _ = _node(MIXED)
    assert not [name for name in node.state_dict() if "order" in name]
    node.to("meta")
    node.keep(MIXED[:3])
    assert node.order.device.type == "meta"


def _two_nodes(is_reduction=True):
    shared = nn.ModuleDict()
    edges = (
        _edges((CONV, 0), (DIL, 1), (CONV, 1), (SKIP, 1), (POOL, 0)),
        _edges((CONV, 2), (CONV, 1), (SKIP, 0), (DIL, 2), (DIL, 0)),
    )
    return [WeightedNode(own, C, is_reduction, shared).double() for own in edges], shared.double()


def test_compute_ahead_takes_the_strided_chains_of_several_nodes(monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", 10**9)
    monkeypatch.setattr(search_spaces.kernels.bank, "UNFOLDED_UP_TO", 0)
    nodes, shared = _two_nodes()
    states = _states(_tensors(True)[:2], shared)
    compute_ahead(nodes, states)
    strided = {id(node.banks[key]) for node in nodes for key in ("sep_conv_3x3_stride_2", "dil_conv_5x5_stride_2")}
    assert {id(bank) for bank in states.ahead} == strided
    for node in nodes[1:]:
        node.banks.pop("sep_conv_3x3_stride_2")
    states = _states(_tensors(True)[:2], shared)
    compute_ahead(nodes, states)
    assert len(states.ahead) == 2, "what only one node has waits for its turn"
    for unmoved, limit in ((_two_nodes(False), 10**9), (_two_nodes(), 0)):
        states = _states(_tensors()[:2], unmoved[1])
        monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", limit)
        compute_ahead(unmoved[0], states)
        assert not states.ahead


def test_nodes_are_the_same_whether_computed_ahead_or_not(monkeypatch):
    monkeypatch.setattr(search_spaces.kernels.bank, "GROUPED_BELOW", 10**9)
    monkeypatch.setattr(search_spaces.kernels.bank, "UNFOLDED_UP_TO", 0)
    (nodes, shared), results = _two_nodes(), []
    before = [copy.deepcopy(node.state_dict()) for node in nodes]
    for is_ahead in (True, False):
        for node, state in zip(nodes, before, strict=True):
            node.load_state_dict(state)
            node.zero_grad()
        tensors = _tensors(True)[:2]
        states = _states(tensors, shared)
        if is_ahead:
            compute_ahead(nodes, states)
            for node in nodes:  # what has been computed is not computed again
                node.banks["sep_conv_3x3_stride_2"].forward = None
        weights, outputs = torch.linspace(0.1, 1, 5, dtype=torch.float64).requires_grad_(), []
        for node in nodes:
            outputs.append(node(states, weights))
            states.append(outputs[-1])
        for node in nodes:
            vars(node.banks["sep_conv_3x3_stride_2"]).pop("forward", None)
        outputs[-1].backward(torch.linspace(-1, 1, outputs[-1].numel(), dtype=torch.float64).view_as(outputs[-1]))
        parts = [parameter.grad for node in nodes for parameter in node.parameters()]
        running = [buffer.clone() for node in nodes for buffer in node.buffers()]
        results.append([*outputs, *(tensor.grad for tensor in tensors), weights.grad, *parts, *running])
    for ours, theirs in zip(*results, strict=True):
        _close(ours, theirs)


def test_drop_deletes_every_other_module():
    modules = nn.ModuleDict({name: nn.Identity() for name in "abc"})
    middle = modules["b"]
    drop(modules, {"b", "elsewhere"})
    assert dict(modules.items()) == {"b": middle}
    drop(modules, set())
    assert not modules
