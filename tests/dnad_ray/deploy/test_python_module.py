"""Every network that can be built from a genotype, exported: the Python module, and the formats of other programs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from dnad_ray.deploy.export import export_network
from dnad_ray.deploy.formats import FORMATS, Deployed
from dnad_ray.deploy.standalone import blocks
from dnad_ray.errors import ConfigError
from dnad_ray.networks.network_file import TrainedNetwork
from dnad_ray.networks.spec import NetworkSpec, build
from search_spaces.genotype import NONE, CellGenotype, Edge, Genotype
from search_spaces.named import SPACES
from search_spaces.ops import OPERATIONS
from search_spaces.published import published
from search_spaces.shape import ImageShape
from search_spaces.space import space_named

# Run where only torch, safetensors and numpy are to be found: imports every module and computes its logits.
PROGRAM = """
import importlib, sys
from pathlib import Path

class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('dnad_ray', 'search_spaces', 'analysis', 'ray', 'torchvision', 'fvcore'):
            raise ImportError(name)

sys.meta_path.insert(0, Wall())
import numpy, torch

torch.set_num_threads(int(sys.argv[1]))

for file in sorted(Path().glob("net_*.py")):
    module = importlib.import_module(file.stem)
    network = module.load(f"{file.stem}.safetensors")
    pixels = torch.from_numpy(numpy.load(f"{file.stem}.pixels.npy"))
    with torch.no_grad():
        numpy.save(f"{file.stem}.logits.npy", network(pixels).numpy())
    assert module.CLASSES == ["ant", "bee", "cow"], module.CLASSES
    loss = network.train()(pixels).square().sum()
    loss.backward()
    assert all(p.grad is not None or "noise" in name for name, p in network.named_parameters()), file
"""


class Case(NamedTuple):
    """A network and what its images are like."""

    genotype: Genotype
    stem: str
    image_size: int
    in_channels: int


def dead_cells() -> Genotype:
    """A dead reduction, whose reader crosses it; an empty node in the output; one edge twice; outputs of some nodes."""
    return Genotype(
        (
            CellGenotype(False, ((Edge("sep_conv_3x3", 0),) * 2, (Edge("max_pool_3x3", 1),) * 2)),
            CellGenotype(True, ((Edge("skip_connect", 0),), ())),
            CellGenotype(False, ((Edge("dil_conv_3x3", 0),), (Edge("skip_connect", 2), Edge(NONE, 0)))),
            CellGenotype(True, ((Edge("skip_connect", 1),) * 2, (Edge("noise", 2), Edge("skip_connect", 2))), (1,)),
            CellGenotype(False, ((Edge("conv_7x1_1x7", 1),), ())),
        )
    )


def every_operation() -> Genotype:
    """Every operation at stride 1 and at stride 2, each once."""
    nodes = (tuple(Edge(name, 1) for name in OPERATIONS if name != NONE),)
    return Genotype((CellGenotype(False, nodes), CellGenotype(True, nodes)))


def residual_cells() -> Genotype:
    """Every operation of NAS-Bench-201 once, in one cell; the other cells have one edge a node."""
    dense = space_named("nas-bench-201", None, 3, 3).dense()
    nodes = dense.cells[0].nodes
    full = CellGenotype(False, (nodes[0], *(edges[-1:] for edges in nodes[1:])), dense.cells[0].concat)
    thin = [CellGenotype(cell.reduction, tuple(e[-1:] for e in cell.nodes), cell.concat) for cell in dense.cells[1:]]
    return Genotype((full, *thin), dense.skeleton)


def cases() -> Iterator[tuple[str, Case]]:
    """All named spaces with all that they can hold, what only published cells have, and the other stem.

    A stem sees of the cells which of the first two read it, so that ``own``, which holds every edge, stands for all.
    """
    genotypes = {}
    for name, template in SPACES.items():
        # Two nodes have every kind of edge; where edges differ, or nodes are no output, it takes all of them.
        num_nodes = template.num_nodes if template.edge_operations or template.skeleton != "darts" else 2
        operations = tuple(OPERATIONS) if name == "own" else None
        genotypes[name] = space_named(name, operations, 3, num_nodes).dense()
    genotypes |= {"dead cells": dead_cells(), "every operation": every_operation()}
    genotypes |= {name: published()[name].genotype(3) for name in ("nasnet-a", "amoebanet-a", "enas")}
    for name, genotype in genotypes.items():
        yield f"{name} cifar", Case(genotype, "cifar", 9, 1)
        if name == "own" or name not in SPACES:
            yield f"{name} imagenet", Case(genotype, "imagenet", 45, 3)


CASES = dict(cases())


def trained(case: Case) -> TrainedNetwork:
    """A network whose norms have statistics of some images."""
    images = ImageShape(in_channels=case.in_channels, image_size=case.image_size, num_classes=3)
    spec = NetworkSpec(origin="search", genotype=case.genotype, init_channels=4, stem=case.stem)
    torch.manual_seed(0)
    network = build(spec, images).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = (
                1.0  # the statistics of these images, so that nothing shrinks on its way through the cells
            )
    with torch.no_grad():
        network(torch.randn(8, case.in_channels, case.image_size, case.image_size) * 2 + 1)
    mean, std = (0.4, 0.5, 0.3)[: case.in_channels], (0.3, 0.2, 0.25)[: case.in_channels]
    return TrainedNetwork(network.eval(), spec, images, ("ant", "bee", "cow"), mean, std, {})


@pytest.fixture(scope="module")
def logits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each case our logits, and those of the module in a process that knows nothing of us."""
    folder: Path = tmp_path_factory.mktemp("modules")
    ours = {}
    for number, (name, case) in enumerate(CASES.items()):
        network = trained(case)
        FORMATS["python"].write(network, folder / f"net_{number}.py")  # what is written is read by the process below
        size = (3, case.in_channels, case.image_size, case.image_size)
        pixels = np.random.default_rng(number).random(size, dtype=np.float32)
        np.save(folder / f"net_{number}.pixels.npy", pixels)
        with torch.no_grad():
            ours[name] = Deployed(network).eval()(torch.from_numpy(pixels)).numpy()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    threads = str(torch.get_num_threads())  # sums are split among them, and rounded accordingly
    subprocess.run([sys.executable, "-c", PROGRAM, threads], cwd=folder, env=environment, check=True)
    return {name: (ours[name], np.load(folder / f"net_{n}.logits.npy")) for n, name in enumerate(CASES)}


@pytest.mark.parametrize("name", CASES)
def test_python_module_gives_the_same_logits_bit_for_bit(name, logits):
    expected, found = logits[name]
    assert np.ptp(expected, 0).min() > 1e-3  # the images are told apart, so that equality means something
    assert np.array_equal(found, expected)


def test_python_module_knows_every_operation():
    assert set(blocks.OPERATIONS) == set(OPERATIONS) - {NONE}
    every = {edge.operation for case in CASES.values() for c in case.genotype.cells for n in c.nodes for edge in n}
    assert every == set(OPERATIONS)


def test_python_module_of_an_operation_that_only_the_package_has_is_refused(tmp_path, monkeypatch):
    network = trained(CASES["s4 cifar"])
    monkeypatch.delitem(blocks.OPERATIONS, "noise")
    with pytest.raises(ConfigError, match="--format python, operation: got 'noise'; allowed: a network of sep_conv"):
        export_network(network, "python", tmp_path / "net.py")
    assert list(tmp_path.iterdir()) == []


def test_python_module_holds_no_skeleton_but_its_own(tmp_path):
    for name, present, absent in (
        ("nas-bench-201 cifar", "class Block", "class ImageNetStem"),
        ("dnad cifar", "class ImageNetStem", "class Block"),
    ):
        export_network(trained(CASES[name]), "python", tmp_path / "net.py")
        text = (tmp_path / "net.py").read_text()
        assert present in text
        assert absent not in text
        assert "dnad_ray" not in text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["onnx", "torch-export", "openvino"])
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "case",
    # What a tracer can meet: both stems, all operations at both strides; dead cells, some outputs, one operation twice
    # on a state; the other skeleton. Of named and published cells it sees no more.
    [
        Case(every_operation(), "imagenet", 45, 3),
        Case(dead_cells(), "cifar", 9, 1),
        Case(residual_cells(), "cifar", 9, 1),
    ],
    ids=["every operation", "dead cells", "residual cells"],
)
def test_files_for_other_programs_give_the_same_logits_with_any_batch(case, kind, tmp_path):
    network = trained(case)
    suffix = FORMATS[kind].suffix
    assert export_network(network, kind, tmp_path / f"net{suffix}").difference < 1e-4
    predict = FORMATS[kind].read(network, tmp_path / f"net{suffix}")
    size = (5, network.images.in_channels, network.images.image_size, network.images.image_size)  # it verifies 1 and 3
    pixels = np.random.default_rng(7).random(size, dtype=np.float32)
    with torch.no_grad():
        expected = Deployed(network).eval()(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(
        predict(pixels), expected, rtol=1e-3, atol=1e-3 * max(1.0, float(np.abs(expected).max()))
    )
