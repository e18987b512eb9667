"""What is in an exported graph: evaluation mode, slices, pools that all readers compute alike."""

from __future__ import annotations

import collections
import json

import numpy as np
import pytest
import torch

from dnad_ray.deploy.export import export_network
from dnad_ray.deploy.formats import FORMATS, Deployed, openvino_reader
from search_spaces.genotype import CellGenotype, Edge

SEPARABLE, DILATED, POOL = Edge("sep_conv_3x3", 1), Edge("dil_conv_3x3", 1), Edge("avg_pool_3x3", 1)


def cell(*edges, reduction=False):
    """A cell of one node; it reads the cell before it only, so that no input has another resolution."""
    return CellGenotype(reduction, (edges,))


def exported(trained, tmp_path):
    file = tmp_path / "net.pt2"
    FORMATS["torch-export"].write(trained, file)
    return torch.export.load(file)


def operators(program):
    return collections.Counter(
        str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function"
    )


def test_exported_graph_has_slices_only_where_pixels_are_skipped(network_of, tmp_path):
    # In the reduction cell a dilated chain and noise take every second pixel, once along each side.
    edges = SEPARABLE, DILATED, Edge("noise", 1)
    trained = network_of(cell(*edges), cell(*edges, reduction=True))
    program = exported(trained, tmp_path)
    assert operators(program)["slice"] == 2 + 2
    pixels = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(program.module()(pixels), Deployed(trained).eval()(pixels))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.usefixtures("installed")
def test_export_of_a_network_in_training_mode_is_made_in_evaluation_mode(network_of, kind, tmp_path):
    trained = network_of(cell(SEPARABLE, Edge("noise", 1)))
    pixels = np.random.default_rng(0).random((2, 1, 8, 8), dtype=np.float32)
    with torch.no_grad():
        expected = Deployed(trained).eval()(torch.from_numpy(pixels)).numpy()
    before = {name: tensor.clone() for name, tensor in trained.network.state_dict().items()}
    trained.network.train()  # in which batch norms take the statistics of the batch, and noise is drawn
    file = tmp_path / f"net{FORMATS[kind].suffix}"
    export_network(trained, kind, file)
    np.testing.assert_allclose(FORMATS[kind].read(trained, file)(pixels), expected, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(before[name], tensor) for name, tensor in trained.network.state_dict().items())


def test_exported_pools_leave_the_padding_out_and_never_round_up(network_of, tmp_path):
    """Readers of such a file divide otherwise where the padding counts or the size is rounded up."""
    darts = network_of(cell(POOL, SEPARABLE), cell(POOL, SEPARABLE, reduction=True))
    edges = Edge("avg_pool_3x3", 0), Edge("nor_conv_3x3", 0)
    residual = network_of(cell(*edges), cell(*edges, reduction=True), skeleton="nas_bench_201")
    for trained, count in ((darts, 2), (residual, 3)):  # the last has one in its residual block, without padding
        pools = [
            node for node in exported(trained, tmp_path).graph.nodes if str(node.target).startswith("aten.avg_pool2d")
        ]
        assert len(pools) == count
        for node in pools:
            given = [
                *node.args,
                *(None, None, None, [0, 0], False, True)[len(node.args) :],
            ]  # as torch's signature has it
            rounds_up, counts_padding = given[4:6]
            assert not rounds_up, node
            assert not counts_padding, node


def test_openvino_file_keeps_float32_weights_names_and_any_batch(network_of, tmp_path):
    openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
    trained = network_of(cell(SEPARABLE, DILATED, POOL), cell(SEPARABLE, Edge("noise", 1), reduction=True))
    exported_files = export_network(trained, "openvino", tmp_path / "net.xml")
    assert exported_files.difference <= 1e-4
    assert sorted(tmp_path.iterdir()) == sorted(exported_files.files)
    model = openvino.Core().read_model(tmp_path / "net.xml")
    types = {str(op.get_element_type()) for op in model.get_ops() if op.get_type_name() == "Constant"}
    assert not any("f16" in name or "float16" in name for name in types), types
    assert json.loads(model.get_rt_info(["framework", "classes"]).astype(str)) == ["ant", "bee", "cow"]
    for batch in (1, 4):
        pixels = np.random.default_rng(batch).random((batch, 1, 8, 8), dtype=np.float32)
        with torch.no_grad():
            expected = Deployed(trained).eval()(torch.from_numpy(pixels)).numpy()
        for threads in (0, 1):
            found = openvino_reader(tmp_path / "net.xml", threads)(pixels)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
