"""The supernet against a plain reference: every candidate alone, with plain functions of torch, times its weight."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import torch.nn.functional as F

from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype
from search_spaces.ops import OPERATIONS
from search_spaces.space import NetworkShape, SearchSpace
from search_spaces.supernet import Candidate, Supernet

CONV, SKIP, POOL, DIL = "sep_conv_3x3", "skip_connect", "max_pool_3x3", "dil_conv_5x5"
SHAPE = NetworkShape(in_channels=1, image_size=8, num_classes=3, init_channels=2)
SPACE = SearchSpace(operations=(CONV, SKIP, POOL, NONE), num_cells=3, num_nodes=2)


def _supernet(space=SPACE, shape=SHAPE):
    torch.manual_seed(0)
    return Supernet(space, shape).double()


def _images(shape=SHAPE, num_images=3):
    generator = torch.Generator().manual_seed(1)
    size = (num_images, shape.in_channels, shape.image_size, shape.image_size)
    return torch.randn(size, generator=generator, dtype=torch.float64)


def _weights(supernet, seed=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(supernet.candidates), generator=generator, dtype=torch.float64).requires_grad_()


class _Reference:
    """Computes what a supernet should, from the parameters of another one in which everything is alive.

    Args:
        dense: A supernet that has nothing deleted; gets the gradients.
        candidates: What is alive, in the order of the weights.
        is_training: Whether batch norms take the statistics of the batch.
    """

    def __init__(self, dense, candidates, is_training):
        self.dense, self.candidates, self.is_training = dense, candidates, is_training
        self.statistics = {}

    def norm(self, x, name):
        module = self.dense.get_submodule(name)
        if self.is_training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
            unbiased = x.detach().var((0, 2, 3), unbiased=True)
            self.statistics[f"{name}.running_mean"] = 0.9 * module.running_mean + 0.1 * mean.detach()
            self.statistics[f"{name}.running_var"] = 0.9 * module.running_var + 0.1 * unbiased
        else:
            mean, var = module.running_mean, module.running_var
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return x if module.weight is None else x * module.weight[:, None, None] + module.bias[:, None, None]

    def conv(self, x, name, **options):
        return F.conv2d(x, self.dense.get_parameter(f"{name}.weight"), **options)

    def reduce(self, x, name):
        x = F.relu(x)
        odd = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))[:, :, 1:, 1:]
        halves = [self.conv(x, f"{name}.even", stride=2), self.conv(odd, f"{name}.odd", stride=2)]
        return self.norm(torch.cat(halves, 1), f"{name}.norm")

    def operation(self, x, kind, name, stride):
        channels = x.shape[1]
        if kind == SKIP:
            return x if stride == 1 else self.reduce(x, name)
        if kind == "max_pool_3x3":
            return self.norm(F.max_pool2d(x, 3, stride, 1), f"{name}.norm")
        if kind == "avg_pool_3x3":
            return self.norm(F.avg_pool2d(x, 3, stride, 1, count_include_pad=False), f"{name}.norm")
        x = F.relu(x)
        if kind.startswith("sep_conv"):
            for part in ("1", "2"):
                pad = int(kind[-1]) // 2
                x = self.conv(F.relu(x), f"{name}.depthwise{part}", stride=stride, padding=pad, groups=channels)
                x = self.norm(self.conv(x, f"{name}.pointwise{part}"), f"{name}.norm{part}")
                stride = 1
            return x
        if kind.startswith("dil_conv"):
            pad = int(kind[-1]) - 1
            x = self.conv(x, f"{name}.depthwise", stride=stride, padding=pad, dilation=2, groups=channels)
            return self.norm(self.conv(x, f"{name}.pointwise"), f"{name}.norm")
        assert kind == "conv_7x1_1x7"
        x = self.conv(x, f"{name}.row", stride=(1, stride), padding=(0, 3))
        return self.norm(self.conv(x, f"{name}.column", stride=(stride, 1), padding=(3, 0)), f"{name}.norm")

    def cell(self, index, is_reduction, inputs, weights):
        cell, name = self.dense.network.cells[str(index)], f"network.cells.{index}"
        own = [(item, weight) for item, weight in zip(self.candidates, weights, strict=True) if item.cell == index]
        states = []
        for source, x in enumerate(inputs):
            path = f"{name}.preprocess.{source}"
            if not any(item.edge.source == source and item.edge.operation != NONE for item, _ in own):
                states.append(None)
            elif hasattr(cell.preprocess[str(source)], "even"):
                states.append(self.reduce(x, path))
            else:
                states.append(self.norm(self.conv(F.relu(x), f"{path}.conv"), f"{path}.norm"))
        side = -(-self.side // 2) if is_reduction else self.side
        for node in range(len(cell.genotype.nodes)):
            total = torch.zeros(self.num_images, cell.genotype_channels, side, side, dtype=torch.float64)
            for item, weight in own:
                kind, source = item.edge.operation, item.edge.source
                if item.node != node or kind == NONE:
                    continue
                shared, alone = f"{source} {kind}", f"{node} {source} {kind}"
                path = f"{name}.shared.{shared}" if shared in cell.shared else f"{name}.own.{alone}"
                stride = 2 if is_reduction and source < 2 else 1
                total = total + weight * self.operation(states[source], kind, path, stride)
            states.append(total)
        return torch.cat(states[2:], 1)

    def __call__(self, images, weights):
        alive = {item.cell for item in self.candidates}
        self.num_images, self.side = images.shape[0], images.shape[2]
        older = newer = self.norm(self.conv(images, "network.stem.conv", padding=1), "network.stem.norm")
        channels, stage, taps = SHAPE.init_channels, 0, [None] * len(self.dense.network.tap_channels)
        for index, topology in enumerate(self.dense.genotype.cells):
            if topology.reduction:
                channels, stage = 2 * channels, stage + 1
            output = None
            if index in alive:
                self.dense.network.cells[str(index)].genotype_channels = channels
                output = self.cell(index, topology.reduction, (older, newer), weights)
                taps[stage] = output
            if topology.reduction:
                self.side = -(-self.side // 2)
            older, newer = newer, output
        linear = self.dense.network.classifier.linear
        return F.linear(newer.mean((2, 3)), linear.weight, linear.bias), taps


def _loss(logits, taps):
    generator = torch.Generator().manual_seed(3)
    total = 0
    for output in (logits, *taps):
        if output is not None:
            total = total + (output * torch.randn(output.shape, generator=generator, dtype=torch.float64)).sum()
    return total


def _close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def _check_against_reference(supernet, dense, images):
    """Compare outputs, all gradients and running statistics; ``dense`` is an untouched copy from before deletions."""
    dense = copy.deepcopy(dense)
    dense.load_state_dict(supernet.state_dict(), strict=False)
    supernet.zero_grad()
    ours, theirs = _weights(supernet), _weights(supernet)
    reference = _Reference(dense, supernet.candidates, supernet.training)
    expected_logits, expected_taps = reference(images, theirs)
    output = supernet(images, ours)
    _close(output.logits, expected_logits)
    assert [tap is None for tap in output.taps] == [tap is None for tap in expected_taps]
    for tap, expected in zip(output.taps, expected_taps, strict=True):
        if tap is not None:
            _close(tap, expected)
    _loss(output.logits, output.taps).backward()
    _loss(expected_logits, expected_taps).backward()
    _close(ours.grad, theirs.grad)
    gradients = {name: parameter.grad for name, parameter in supernet.named_parameters()}
    expected = {name: parameter.grad for name, parameter in dense.named_parameters() if parameter.grad is not None}
    assert set(gradients) == set(expected), "only what is alive has parameters"
    for name, gradient in gradients.items():
        _close(gradient, expected[name])
    buffers = {name: value for name, value in supernet.named_buffers() if not name.endswith("num_batches_tracked")}
    if supernet.training:
        assert set(buffers) == set(reference.statistics)
        for name, value in buffers.items():
            _close(value, reference.statistics[name])
    else:
        assert not reference.statistics


@pytest.mark.parametrize(("image_size", "memory_format"), [(8, torch.contiguous_format), (7, torch.channels_last)])
def test_dense_agrees_with_reference(image_size, memory_format):
    space = SearchSpace(operations=tuple(OPERATIONS), num_cells=3, num_nodes=2)
    shape = NetworkShape(in_channels=2, image_size=image_size, num_classes=3, init_channels=2)
    supernet = _supernet(space, shape).to(memory_format=memory_format)
    images = _images(shape).contiguous(memory_format=memory_format)
    dense = copy.deepcopy(supernet)
    _check_against_reference(supernet, dense, images)
    supernet.eval()  # with the running statistics that the step above left
    _check_against_reference(supernet, dense, images)


def test_evaluation_leaves_running_statistics_alone():
    supernet = _supernet().eval()
    before = {name: value.clone() for name, value in supernet.named_buffers()}
    supernet(_images(), _weights(supernet))
    assert all(torch.equal(value, before[name]) for name, value in supernet.named_buffers())


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_reference_after_random_deletions(seed):
    generator = random.Random(seed)
    supernet = _supernet(SearchSpace(operations=(CONV, SKIP, POOL, DIL, NONE), num_cells=4, num_nodes=2))
    dense = copy.deepcopy(supernet)
    images, num_checked = _images(), 0
    for _ in range(40):
        before = supernet.candidates
        gone = generator.sample(range(len(before)), max(1, len(before) // 3))
        try:
            kept = supernet.remove(gone)
        except ValueError:
            assert supernet.candidates == before, "a refused removal changes nothing"
            if len(before) < 8:
                break
            continue
        assert supernet.candidates == tuple(before[position] for position in kept)
        assert not set(kept) & set(gone)
        supernet.train(num_checked % 3 < 2)
        _check_against_reference(supernet, dense, images)
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
    cell = supernet.network.cells["1"]
    before = sum(parameter.numel() for parameter in supernet.parameters())
    kept = supernet.remove(_positions(supernet, lambda item: item == (1, 0, Edge(CONV, 1))))
    assert len(kept) == 59
    assert "0 1 sep_conv_3x3" not in cell.own
    assert not [name for name in _names(supernet) if name.startswith("network.cells.1.own.0 1 sep_conv_3x3")]
    # C = 4 there: two depthwise 3x3 and two pointwise convolutions, without affine norms.
    assert before - sum(parameter.numel() for parameter in supernet.parameters()) == 2 * (4 * 9 + 4 * 4)


def test_remove_keeps_what_another_node_shares():
    supernet = _supernet()
    cell = supernet.network.cells["0"]
    supernet.remove(_positions(supernet, lambda item: item == (0, 0, Edge(POOL, 1))))
    assert "1 max_pool_3x3" in cell.shared
    supernet.remove(_positions(supernet, lambda item: item == (0, 1, Edge(POOL, 1))))
    assert "1 max_pool_3x3" not in cell.shared


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

    kept = supernet.remove(_positions(supernet, reads_cell_one))
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
    kept = supernet.remove(gone)
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
    assert supernet.remove([]) == list(range(60))
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
