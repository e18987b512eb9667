"""Drop-path: what is dropped, for whom, how often, and that it leaves no trace."""

from __future__ import annotations

import pytest
import torch

from search_spaces.drop_path import DropPath
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.network import network_from
from search_spaces.shape import ImageShape, NetworkShape

CPU = torch.device("cpu")
SHAPE = NetworkShape(images=ImageShape(in_channels=1, image_size=8, num_classes=3), init_channels=4)


def network_of(*edges):
    cell = CellGenotype(False, (tuple(edges),))
    return network_from(Genotype((cell,)), SHAPE)


def outputs_of(network, drop_path, module, probability, batch=4000):
    """What leaves the module, with what leaves it without drop-path."""
    found = []
    handle = module.register_forward_hook(lambda *arguments: found.append(arguments[2].detach().clone()))
    images = torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for value in (probability, 0.0):
        drop_path.begin_step(value, 7, CPU)
        network(images)
    handle.remove()
    return found


def test_drop_path_drops_whole_images_and_scales_the_others():
    network = network_of(Edge("sep_conv_3x3", 1)).train()
    drop_path = DropPath(network)
    (module,) = network.cells["0"].nodes[0].own.values()
    dropped, plain = outputs_of(network, drop_path, module, 0.25)
    is_gone = dropped.flatten(1).abs().sum(1) == 0
    # 4000 draws of 1/4: 1000, with a standard deviation of 27.
    assert 880 < int(is_gone.sum()) < 1120
    torch.testing.assert_close(dropped[~is_gone], plain[~is_gone] / 0.75)


def test_drop_path_keeps_identities_and_input_preprocessing():
    network = network_of(Edge("skip_connect", 1)).train()
    drop_path = DropPath(network)
    for module in (network.cells["0"].shared["skip_connect_from_1"], network.cells["0"].preprocess["1"]):
        dropped, plain = outputs_of(network, drop_path, module, 0.9, batch=64)
        torch.testing.assert_close(dropped, plain)


def test_drop_path_acts_in_training_only_and_is_a_function_of_its_seed():
    network = network_of(Edge("sep_conv_3x3", 0), Edge("max_pool_3x3", 1))
    drop_path = DropPath(network)
    images = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = network.eval()(images).logits
    drop_path.begin_step(0.5, 1, CPU)
    assert torch.equal(network(images).logits, plain)
    network.train()
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.eval()  # so that nothing but drop-path depends on the pass
    results = []
    for seed in (1, 1, 2):
        drop_path.begin_step(0.5, seed, CPU)
        results.append(network(images).logits)
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert not torch.equal(results[0], plain)


@pytest.mark.parametrize("operation", ["sep_conv_3x3", "max_pool_3x3"])
def test_drop_path_adds_nothing_to_the_state(operation):
    network = network_of(Edge(operation, 1))
    before = set(network.state_dict())
    DropPath(network)
    assert set(network.state_dict()) == before
