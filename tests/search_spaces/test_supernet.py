"""The supernet against a plain one: a module per candidate, a loop, and nothing shared, fused or removed."""

from __future__ import annotations

import copy
import random
import re

import pytest
import torch

import search_spaces.kernels.bank
import search_spaces.kernels.small_images
from benchmarks.plain_supernet import PlainSupernet, copy_weights, twins
from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype
from search_spaces.ops import CHAINS, OPERATIONS
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import SearchSpace
from search_spaces.supernet import Candidate, Supernet

CONV, SKIP, POOL, DIL = "sep_conv_3x3", "skip_connect", "max_pool_3x3", "dil_conv_5x5"
SHAPE = NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=3), init_channels=2)
SPACE = SearchSpace(operations=(CONV, SKIP, POOL, NONE), num_cells=3, num_nodes=2)


@pytest.fixture(
    params=[(0, 10**9, 10**9), (0, 10**9, 0), (0, 0, 0), (10**9, 0, 0)],
    ids=["unfolded", "grouped", "one by one", "small images"],
)
def grouped(request, monkeypatch):
    """Computes the candidates of a bank unfolded, folded together, folded each alone, or whole cells by hand."""
    small, *limits = request.param
    monkeypatch.setattr(search_spaces.kernels.small_images, "SMALL_UP_TO", small)
    for name, limit in zip(("GROUPED_BELOW", "UNFOLDED_UP_TO"), limits, strict=True):
        monkeypatch.setattr(search_spaces.kernels.bank, name, limit)


def _supernet(space=SPACE, shape=SHAPE):
    torch.manual_seed(0)
    return Supernet(space, shape).double()


def _images(shape=SHAPE, num_images=3):
    generator = torch.Generator().manual_seed(1)
    size = (num_images, shape.images.in_channels, shape.images.image_size, shape.images.image_size)
    return torch.randn(size, generator=generator, dtype=torch.float64)


def _weights(supernet, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(supernet.candidates), generator=generator, dtype=torch.float64).requires_grad_()


def _loss(logits, taps):
    generator = torch.Generator().manual_seed(3)
    total = 0
    for output in (logits, *taps):
        if output is not None:
            total = total + (output * torch.randn(output.shape, generator=generator, dtype=torch.float64)).sum()
    return total


def _close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def _plain(space, shape=SHAPE):
    size = (space.num_cells, space.num_nodes, shape.images.in_channels, shape.init_channels, shape.images.num_classes)
    return PlainSupernet(space.operations, *size).double()


def _last_of_each_stage(network, outputs):
    taps = [None] * (network.stages[-1] + 1)
    for index, stage in enumerate(network.stages):
        if str(index) in network.cells:
            taps[stage] = outputs[index]
    return taps


def _check_against_plain(supernet, plain, images):
    """Compare outputs, all gradients and running statistics; the plain net has everything, dead or alive."""
    plain.train(supernet.training)
    copy_weights(supernet, plain)
    supernet.zero_grad()
    plain.zero_grad()
    ours, theirs = _weights(supernet), _weights(supernet)
    output = supernet(images, ours)
    logits, outputs = plain(images.contiguous(), supernet.candidates, theirs)
    taps = _last_of_each_stage(supernet.network, outputs)
    _close(output.logits, logits)
    assert [tap is None for tap in output.taps] == [tap is None for tap in taps]
    for tap, expected in zip(output.taps, taps, strict=True):
        if tap is not None:
            _close(tap, expected)
    _loss(output.logits, output.taps).backward()
    _loss(logits, taps).backward()
    _close(ours.grad, theirs.grad)
    parameters, buffers = dict(supernet.named_parameters()), dict(supernet.named_buffers())
    expected_parameters, expected_buffers = dict(plain.named_parameters()), dict(plain.named_buffers())
    covered = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in (parameters | buffers).items()}
    for plain_name, (name, rows) in twins(supernet).items():
        covered[name][rows] = True
        if name in parameters:
            gradient = parameters[name].grad[rows]
            _close(gradient, expected_parameters[plain_name].grad.reshape(gradient.shape))
        else:
            _close(buffers[name][rows], expected_buffers[plain_name])
    for name, entries in covered.items():
        assert entries.all() or name.endswith(("num_batches_tracked", "order")), name
    dead = set(expected_parameters) - set(twins(supernet))
    for name in dead:
        gradient = expected_parameters[name].grad
        assert gradient is None or not gradient.any(), f"{name} is alive and has no twin"


@pytest.mark.usefixtures("grouped")
@pytest.mark.parametrize(("image_size", "memory_format"), [(8, torch.contiguous_format), (7, torch.channels_last)])
def test_dense_agrees_with_plain(image_size, memory_format):
    space = SearchSpace(operations=tuple(name for name in OPERATIONS if name != "noise"), num_cells=3, num_nodes=2)
    shape = NetworkShape(images=ImageShape(in_channels=2, image_size=image_size, num_classes=3), init_channels=3)
    supernet = _supernet(space, shape).to(memory_format=memory_format)
    images = _images(shape).contiguous(memory_format=memory_format)
    plain = _plain(space, shape)
    _check_against_plain(supernet, plain, images)
    supernet.eval()  # with the running statistics that the step above left
    _check_against_plain(supernet, plain, images)


@pytest.mark.parametrize(("image_size", "num_images"), [(8, 3), (7, 2), (6, 1)])
def test_small_images_agree_with_plain(image_size, num_images):
    """Every candidate of small images, in cells of all three kinds: before, in and behind a reduction."""
    space = SearchSpace(operations=(*CHAINS, POOL, "avg_pool_3x3", SKIP, NONE), num_cells=4, num_nodes=2)
    shape = NetworkShape(images=ImageShape(in_channels=3, image_size=image_size, num_classes=3), init_channels=4)
    supernet = _supernet(space, shape)
    images = _images(shape, num_images)
    names = {type(node).__name__ for node in _graph_of(supernet(images, _weights(supernet)).logits)}
    assert names >= {"_SmallStemBackward", "_SmallCellBackward"}
    assert not names & {"ConvolutionBackward0", "NativeBatchNormBackward0"}
    supernet = _supernet(space, shape)
    _check_against_plain(supernet, _plain(space, shape), images)


def _graph_of(output):
    found, todo = set(), [output.grad_fn]
    while todo:
        node = todo.pop()
        if node is not None and node not in found:
            found.add(node)
            todo += [parent for parent, _ in node.next_functions]
    return found


@pytest.mark.slow
def test_agrees_with_plain_at_size():
    """8 cells of 16 channels on 32x32 pixels, the candidates of the authors' release."""
    space = SearchSpace(operations=(CONV, SKIP, DIL), num_cells=8, num_nodes=4)
    shape = NetworkShape(images=ImageShape(in_channels=3, image_size=32, num_classes=10), init_channels=16)
    supernet = _supernet(space, shape).to(memory_format=torch.channels_last)
    _check_against_plain(supernet, _plain(space, shape), _images(shape, 2))


def test_float32_is_as_near_to_float64_as_plain_is():
    """Norms folded into kernels must not cost digits: errors of float32 are compared, at a size that has some."""
    space = SearchSpace(operations=(CONV, SKIP, DIL, POOL), num_cells=4, num_nodes=2)
    shape = NetworkShape(images=ImageShape(in_channels=1, image_size=16, num_classes=3), init_channels=8)
    exact = _supernet(space, shape)
    images, weights = _images(shape, 32), _weights(exact).detach()
    plain = _plain(space, shape)
    copy_weights(exact, plain)
    candidates = exact.candidates
    expected = exact(images, weights).logits
    ours = copy.deepcopy(exact).float()(images.float(), weights.float()).logits
    theirs, _ = plain.float()(images.float(), candidates, weights.float())
    error, plain_error = ((logits - expected).abs().max() for logits in (ours, theirs))
    assert error < 10 * plain_error
    assert error < 1e-4 * expected.abs().max()


def test_evaluation_leaves_running_statistics_alone():
    supernet = _supernet().eval()
    before = {name: value.clone() for name, value in supernet.named_buffers()}
    supernet(_images(), _weights(supernet))
    assert all(torch.equal(value, before[name]) for name, value in supernet.named_buffers())


@pytest.mark.usefixtures("grouped")
@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_plain_after_random_deletions(seed):
    generator = random.Random(seed)
    space = SearchSpace(operations=(CONV, SKIP, POOL, DIL, NONE), num_cells=4, num_nodes=2)
    supernet, plain = _supernet(space), _plain(space)
    images, num_checked = _images(), 0
    for _ in range(40):
        before = supernet.candidates
        gone = generator.sample(range(len(before)), max(1, len(before) // 3))
        try:
            kept = supernet.remove(gone).kept
        except ValueError:
            assert supernet.candidates == before, "a refused removal changes nothing"
            if len(before) < 8:
                break
            continue
        assert supernet.candidates == tuple(before[position] for position in kept)
        assert not set(kept) & set(gone)
        supernet.train(num_checked % 3 < 2)
        _check_against_plain(supernet, plain, images)
        num_checked += 1
    assert num_checked > 4
    assert len(supernet.candidates) < 20


def test_candidates_are_in_the_order_of_the_weights():
    supernet = _supernet()
    assert len(supernet.candidates) == SPACE.num_candidates == 60
    assert supernet.candidates[0] == Candidate(0, 0, Edge(CONV, 0))
    assert supernet.candidates[3] == Candidate(0, 0, Edge(NONE, 0))
    assert supernet.candidates[8] == Candidate(0, 1, Edge(CONV, 0))
    assert supernet.candidates[-1] == Candidate(2, 1, Edge(NONE, 2))
    _, derivatives = _one_gradient(supernet)
    assert [bool(value) for value in derivatives] == [item.edge.operation != NONE for item in supernet.candidates]


def _one_gradient(supernet):
    weights = _weights(supernet)
    output = supernet(_images(), weights)
    _loss(output.logits, output.taps).backward()
    return output, weights.grad


def _positions(supernet, wanted):
    return [position for position, item in enumerate(supernet.candidates) if wanted(item)]


def _names(supernet):
    return {name for name, _ in (*supernet.named_parameters(), *supernet.named_buffers(), *supernet.named_modules())}


def test_remove_is_physical():
    supernet = _supernet()
    before = sum(parameter.numel() for parameter in supernet.parameters())
    bank = supernet.network.cells["1"].nodes[0].banks["sep_conv_3x3_stride_2"]
    whole = {name: value.clone() for name, value in bank.state_dict().items()}
    removal = supernet.remove(_positions(supernet, lambda item: item == (1, 0, Edge(CONV, 0))))
    assert len(removal.kept) == 59
    # C = 4 there: two depthwise 3x3 and two pointwise convolutions, without affine norms.
    assert before - sum(parameter.numel() for parameter in supernet.parameters()) == 2 * (4 * 9 + 4 * 4)
    assert {id(parameter) for parameter, _ in removal.sliced} == {id(parameter) for parameter in bank.parameters()}
    assert all(rows.tolist() == [4, 5, 6, 7] for _, rows in removal.sliced)
    for name, value in bank.state_dict().items():
        assert torch.equal(value, whole[name][4:] if whole[name].dim() else whole[name]), name
    # The other of the bank goes with the bank.
    removal = supernet.remove(_positions(supernet, lambda item: item == (1, 0, Edge(CONV, 1))))
    assert not removal.sliced
    assert "sep_conv_3x3_stride_2" not in supernet.network.cells["1"].nodes[0].banks


def test_remove_keeps_what_another_node_shares():
    supernet = _supernet()
    cell = supernet.network.cells["0"]
    supernet.remove(_positions(supernet, lambda item: item == (0, 0, Edge(POOL, 1))))
    assert "max_pool_3x3_from_1" in cell.shared
    supernet.remove(_positions(supernet, lambda item: item == (0, 1, Edge(POOL, 1))))
    assert "max_pool_3x3_from_1" not in cell.shared


def test_remove_drops_the_preprocessing_of_an_unread_input():
    supernet = _supernet()
    supernet.remove(_positions(supernet, lambda item: item.cell == 1 and item.edge.source == 0))
    assert set(supernet.network.cells["1"].preprocess) == {"1"}
    assert set(supernet.network.cells["2"].preprocess) == {"0", "1"}
    assert not [name for name in _names(supernet) if name.startswith("network.cells.1.preprocess.0")]


def test_remove_drops_a_cell_that_nothing_reads():
    supernet = _supernet()
    before = supernet.candidates

    def reads_cell_one(item):
        return item.cell == 2 and item.edge.source == 1

    kept = supernet.remove(_positions(supernet, reads_cell_one)).kept
    assert set(supernet.network.cells) == {"0", "2"}
    assert kept == [i for i, item in enumerate(before) if item.cell != 1 and not reads_cell_one(item)]
    assert supernet.genotype.cells[1] == CellGenotype(True, ((), ()))
    output, _ = _one_gradient(supernet)
    assert [tap is None for tap in output.taps] == [False, True, False]
    # Cell 1 would have halved, so the last cell sees twice the resolution, and a reduction cell halves it once more.
    assert (output.taps[0].shape[-1], output.taps[2].shape[-1]) == (8, 2)


def test_remove_cascades_from_a_node_without_inputs():
    supernet = _supernet()
    before = supernet.candidates
    gone = _positions(supernet, lambda item: (item.cell, item.node) == (1, 0) and item.edge.operation != NONE)
    kept = supernet.remove(gone).kept
    # What was `none` in the node goes too, and every edge out of the node; `none` on it stays in its own node.
    lost = {before[i] for i in set(range(60)) - set(kept) - set(gone)}
    assert lost == {
        *(Candidate(1, 0, Edge(NONE, source)) for source in (0, 1)),
        *(Candidate(1, 1, Edge(kind, 2)) for kind in (CONV, SKIP, POOL)),
    }
    assert Candidate(1, 1, Edge(NONE, 2)) in supernet.candidates
    output, _ = _one_gradient(supernet)
    assert not output.taps[1][:, :4].any()
    assert output.taps[1][:, 4:].any()


def test_remove_cascades_backwards_through_cells():
    supernet = _supernet(SearchSpace(operations=(SKIP,), num_cells=5, num_nodes=1))
    # Without its inputs cell 3 is zero; only it and cell 2 (through input 0 of cell 4) led to the last one.
    supernet.remove(_positions(supernet, lambda item: item.cell == 3 or item == (2, 0, Edge(SKIP, 1))))
    assert set(supernet.network.cells) == {"0", "2", "4"}
    assert supernet.candidates == (
        Candidate(0, 0, Edge(SKIP, 0)),
        Candidate(0, 0, Edge(SKIP, 1)),
        Candidate(2, 0, Edge(SKIP, 0)),
        Candidate(4, 0, Edge(SKIP, 0)),
    )
    assert _one_gradient(supernet)[0].logits.shape == (3, 3)


def test_remove_refuses_to_cut_the_image_off():
    supernet = _supernet()
    names = _names(supernet)
    with pytest.raises(ValueError, match="cut the image off"):
        supernet.remove(_positions(supernet, lambda item: item.cell == 2))
    assert len(supernet.candidates) == 60
    assert _names(supernet) == names


def test_remove_refuses_where_only_none_is_left():
    supernet = _supernet()
    with pytest.raises(ValueError, match="cut the image off"):
        supernet.remove(_positions(supernet, lambda item: item.cell == 2 and item.edge.operation != NONE))


def test_remove_nothing_changes_nothing():
    supernet = _supernet()
    names = _names(supernet)
    assert supernet.remove([]) == (list(range(60)), [])
    assert _names(supernet) == names


def test_keep_only_reproduces_candidates_in_order():
    supernet = _supernet()
    generator = random.Random(0)
    for _ in range(3):
        supernet.remove(generator.sample(range(len(supernet.candidates)), 8))
    recorded = Genotype.from_json(supernet.genotype.to_json())
    again = _supernet()
    again.keep_only(recorded)
    assert again.candidates == supernet.candidates
    assert again.genotype == recorded
    assert list(again.state_dict()) == list(supernet.state_dict())
    again.load_state_dict(supernet.state_dict())
    weights = _weights(supernet)
    assert torch.equal(again(_images(), weights).logits, supernet(_images(), weights).logits)


def test_weights_of_none_have_no_effect():
    supernet = _supernet().eval()
    weights = _weights(supernet).detach()
    changed = weights.clone()
    changed[_positions(supernet, lambda item: item.edge.operation == NONE)] = 100.0
    assert torch.equal(supernet(_images(), weights).logits, supernet(_images(), changed).logits)


def test_same_seed_same_supernet():
    ours, theirs = _supernet().state_dict(), _supernet().state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_state_of_an_older_version_is_read():
    """Names of candidates and banks had spaces: ``own.1 conv_7x1_1x7``, ``banks.sep_conv_3x3 2``."""
    space = SearchSpace(
        operations=("sep_conv_3x3", "conv_7x1_1x7", "max_pool_3x3", "skip_connect"), num_cells=3, num_nodes=2
    )
    shape = NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=3), init_channels=2)
    supernets = [Supernet(space, shape) for _ in range(2)]
    weights = torch.rand(len(supernets[0].candidates))
    supernets[0](torch.randn(4, 1, 8, 8), weights)  # statistics of its own
    state = {
        re.sub(r"\b(\w+)_from_(\d)\b", r"\2 \1", re.sub(r"_stride_(\d)\b", r" \1", name)): tensor
        for name, tensor in supernets[0].state_dict().items()
    }
    for name in ("own.1 conv_7x1_1x7.row.weight", "banks.sep_conv_3x3 2.norms.0.running_mean"):
        assert f"network.cells.1.nodes.0.{name}" in state
    assert "network.cells.1.shared.2 max_pool_3x3.norm.running_mean" in state
    before = list(state)
    assert str(supernets[1].load_state_dict(state)) == "<All keys matched successfully>"
    assert list(state) == before
    images = torch.randn(2, 1, 8, 8)
    ours, theirs = (supernet.eval()(images, weights).logits for supernet in supernets)
    assert torch.equal(ours, theirs)
