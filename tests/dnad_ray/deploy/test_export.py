"""Export: every format read again by the program it is for, nothing half-written, and images classified by it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import stat
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file

from dnad_ray.deploy import export as exporting
from dnad_ray.deploy.export import ExportError, export_network
from dnad_ray.deploy.formats import FORMATS, Deployed
from dnad_ray.deploy.suffixes import SUFFIXES
from dnad_ray.errors import ConfigError, RunFolderError, UserError
from dnad_ray.networks.network_file import TrainedNetwork, read_network, write_network
from dnad_ray.networks.spec import NetworkSpec, build
from dnad_ray.storage.files import write_json
from search_spaces.genotype import CellGenotype, Edge, Genotype
from search_spaces.shape import ImageShape

# Every kind of operation, a dead cell, a node without edges, a state that nothing reads.
CELLS = (
    CellGenotype(False, ((Edge("sep_conv_3x3", 0), Edge("max_pool_3x3", 1)), (Edge("dil_conv_5x5", 2),))),
    CellGenotype(
        True, ((Edge("sep_conv_5x5", 1), Edge("skip_connect", 0)), (Edge("dil_conv_3x3", 1), Edge("noise", 0)))
    ),
    CellGenotype(True, ((Edge("conv_7x1_1x7", 1), Edge("avg_pool_3x3", 0)), ())),
    CellGenotype(False, ((Edge("sep_conv_7x7", 0),), (Edge("skip_connect", 2), Edge("nor_conv_3x3", 2)))),
)
DARTS = Genotype(CELLS)
SMALL = Genotype((CellGenotype(False, ((Edge("sep_conv_3x3", 1),),)),))  # where it does not matter what is exported
RESIDUAL = Genotype(
    tuple(
        CellGenotype(
            reduction,
            (
                (Edge("nor_conv_3x3", 0), Edge("nor_conv_1x1", 0)),
                (Edge("skip_connect", 0), Edge("avg_pool_3x3", 1), Edge("skip_connect", 1)),
            ),
            (1,),
        )
        for reduction in (False, True)
    ),
    "nas_bench_201",
)


def trained(stem="cifar", size=8, channels=1, seed=0, genotype=SMALL) -> TrainedNetwork:
    """A network whose statistics are those of no initialisation."""
    images = ImageShape(in_channels=channels, image_size=size, num_classes=3)
    spec = NetworkSpec(origin="search", genotype=genotype, init_channels=4, stem=stem)
    torch.manual_seed(seed)
    network = build(spec, images).train()
    for _ in range(3):
        network(torch.randn(8, channels, size, size) * 2 + 1)
    facts = {"run": "demo", "job": "j", "macs": 5, "accuracy": 0.5, "split": "test", "num_images": 9, "dataset": "d"}
    return TrainedNetwork(
        network.eval(), spec, images, ("ant", "bee", "cow"), (0.4,) * channels, (0.3,) * channels, facts
    )


def pixels_of(network, batch):
    images = network.images
    size = (batch, images.in_channels, images.image_size, images.image_size)
    return np.random.default_rng(1).random(size, dtype=np.float32)


def logits(network, pixels):
    with torch.no_grad():
        return Deployed(network).eval()(torch.from_numpy(pixels)).numpy()


def test_deployed_network_normalises_pixels_by_hand():
    network = trained()
    pixels = pixels_of(network, 2)
    with torch.no_grad():
        expected = network.network(torch.from_numpy((pixels - 0.4) / 0.3)).logits.numpy()
    np.testing.assert_allclose(logits(network, pixels), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_onnx_file_runs_in_its_runtime_with_any_batch(tmp_path):
    network = trained("imagenet", 64, 3)
    result = export_network(network, "onnx", tmp_path / "net.onnx")
    assert result.difference < 1e-4
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    shapes = [entry.shape for entry in (*session.get_inputs(), *session.get_outputs())]
    assert shapes == [["batch", 3, 64, 64], ["batch", 3]]
    for batch in (1, 2, 5):
        pixels = pixels_of(network, batch)
        (found,) = session.run(["logits"], {"images": pixels})
        np.testing.assert_allclose(found, logits(network, pixels), rtol=1e-3, atol=1e-3)
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["classes"]) == ["ant", "bee", "cow"]
    assert json.loads(metadata["mean"]) == pytest.approx([0.4] * 3)
    assert json.loads(metadata["network"])["genotype"]["digest"] == network.spec.digest
    assert not onnx.load(tmp_path / "net.onnx", load_external_data=False).graph.initializer[0].external_data


@pytest.mark.parametrize("genotype", [DARTS, RESIDUAL], ids=["darts", "nas_bench_201"])
def test_torch_export_file_runs_with_any_batch(genotype, tmp_path):
    network = trained(genotype=genotype)
    export_network(network, "torch-export", tmp_path / "net.pt2")
    extra = {"metadata.json": ""}
    program = torch.export.load(tmp_path / "net.pt2", extra_files=extra).module()
    for batch in (1, 4):
        pixels = pixels_of(network, batch)
        found = program(torch.from_numpy(pixels)).detach().numpy()
        np.testing.assert_allclose(found, logits(network, pixels), rtol=1e-4, atol=1e-4)
    assert json.loads(extra["metadata.json"])["classes"] == ["ant", "bee", "cow"]


def test_python_module_of_a_torchvision_network_is_refused(tmp_path):
    network = dataclasses.replace(trained(), spec=NetworkSpec(origin="torchvision", model="resnet18", width=0.25))
    with pytest.raises(ConfigError, match="a network of cells"):
        export_network(network, "python", tmp_path / "net.py")
    assert list(tmp_path.iterdir()) == []


def test_safetensors_read_again_is_the_same_network(tmp_path):
    network = trained(genotype=DARTS)
    export_network(network, "safetensors", tmp_path / "net.safetensors")
    again = read_network(tmp_path, "net.safetensors", "net.json")
    pixels = pixels_of(network, 2)
    assert np.array_equal(logits(again, pixels), logits(network, pixels))
    assert (again.classes, again.facts) == (network.classes, network.facts)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.usefixtures("installed")
def test_export_that_gives_other_outputs_leaves_nothing(kind, tmp_path, monkeypatch):
    form = FORMATS[kind]

    def wrong(network, file):
        return lambda pixels: form.read(network, file)(pixels) + 1

    monkeypatch.setitem(exporting.FORMATS, kind, form._replace(read=wrong))
    with pytest.raises(ExportError, match="other outputs"):
        export_network(trained(), kind, tmp_path / f"net{form.suffix}")
    assert list(tmp_path.iterdir()) == []


def test_export_to_what_cannot_be_written_is_refused(tmp_path):
    for target in (tmp_path / "no" / "net.safetensors", Path("/proc/net.safetensors")):
        with pytest.raises(RunFolderError, match="--out"):
            export_network(trained(), "safetensors", target)
    with pytest.raises(RunFolderError, match=r"can be written \(No such file or directory\)"):
        export_network(trained(), "safetensors", tmp_path / "no" / "net.safetensors")
    (tmp_path / "net.safetensors").mkdir()
    with pytest.raises(RunFolderError, match="not a folder"):
        export_network(trained(), "safetensors", tmp_path / "net.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_export_without_its_packages_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"onnx is not installed: pip install .*\[export\]"):
        export_network(trained(), "onnx", tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match=r"ends with \.onnx"):
        export_network(trained(), "onnx", tmp_path / "net.txt")
    with pytest.raises(ConfigError, match="--format: got 'tflite'"):
        export_network(trained(), "tflite", tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_model_card_says_where_from_what_it_costs_and_reaches(tmp_path):
    network = trained()
    export_network(network, "safetensors", tmp_path / "net.safetensors")
    card = (tmp_path / "net.safetensors.md").read_text()
    for words in (network.spec.digest, "50.00% of 9 test images of d", "0: ant, 1: bee", "licence", "demo, j"):
        assert words in card


def test_model_card_of_facts_that_somebody_made_up_stays_a_card(tmp_path):
    network = dataclasses.replace(
        trained(), facts={"accuracy": "high", "run": "a|b\n# heading", "macs": "few"}, classes=("a\n# b", "c", "d")
    )
    export_network(network, "safetensors", tmp_path / "net.safetensors")
    card = (tmp_path / "net.safetensors.md").read_text()
    assert "not measured" in card
    assert sum(line.startswith("# ") for line in card.splitlines()) == 1


def test_export_to_safetensors_is_described_as_a_trained_network_is(tmp_path, digits):
    """One description for both: an export can be read wherever the folder of a job can, and the other way round."""
    network = trained(genotype=DARTS)
    export_network(network, "safetensors", tmp_path / "net.safetensors")
    data = dataclasses.replace(digits, classes=network.classes, mean=network.mean, std=network.std)
    write_network(tmp_path, network.network, network.spec, data, dict(network.facts))
    assert (tmp_path / "net.json").read_bytes() == (tmp_path / "network.json").read_bytes()
    assert (tmp_path / "net.safetensors").read_bytes() == (tmp_path / "weights.safetensors").read_bytes()
    # The order in which jobs have always been described.
    keys = ["kind", "schema", "network", "images", "classes", "mean", "std", "sha256", "facts", "checksum"]
    assert list(json.loads((tmp_path / "net.json").read_text())) == keys


def test_every_format_has_a_suffix_of_its_own():
    assert {name: form.suffix for name, form in FORMATS.items()} == SUFFIXES
    assert len(set(SUFFIXES.values())) == len(SUFFIXES)


def test_network_file_of_another_network_is_refused(tmp_path, digits):
    network = trained()
    data = dataclasses.replace(digits, classes=network.classes, mean=network.mean, std=network.std)
    write_network(tmp_path, network.network, network.spec, data, {})
    assert read_network(tmp_path).spec.digest == network.spec.digest
    description = json.loads((tmp_path / "network.json").read_text())
    for change in (
        {"sha256": "0" * 64},
        {"classes": ["ant"]},
        {"std": [0.0]},
        {"network": description["network"] | {"init_channels": 6}},
        {"network": description["network"] | {"model": "resnet18"}},
        {"images": description["images"] | {"num_classes": 10**9}},
        {"kind": "teacher"},
    ):
        write_json(tmp_path / "network.json", description | change)
        with pytest.raises(RunFolderError, match="an intact trained network"):
            read_network(tmp_path)


def former(name):
    """The name that an edge's tensor had in files of older versions, with a space in it."""
    return re.sub(r"(\w+)_from_(\d)(?:_(\d))?", lambda found: f"{found[2]} {found[1]} {found[3] or ''}".strip(), name)


def test_network_file_of_an_older_version_is_read(tmp_path, digits):
    network = trained(genotype=DARTS)
    data = dataclasses.replace(digits, classes=network.classes, mean=network.mean, std=network.std)
    write_network(tmp_path, network.network, network.spec, data, {})
    weights = {former(name): tensor for name, tensor in load_file(tmp_path / "weights.safetensors").items()}
    assert "cells.0.nodes.1.own.2 dil_conv_5x5.norms.0.weight" in weights
    assert "cells.3.nodes.1.own.2 nor_conv_3x3.conv.weight" in weights
    save_file(weights, tmp_path / "weights.safetensors")
    description = json.loads((tmp_path / "network.json").read_text())
    del description["checksum"]
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    (tmp_path / "network.json").write_text(json.dumps(description | {"sha256": digest}))
    pixels = pixels_of(network, 2)
    assert np.array_equal(logits(read_network(tmp_path), pixels), logits(network, pixels))
    # One tensor under both names is two.
    name = "cells.0.nodes.1.own.2 dil_conv_5x5.norms.0.weight"
    weights["cells.0.nodes.1.own.dil_conv_5x5_from_2.norms.0.weight"] = weights[name].clone()
    save_file(weights, tmp_path / "weights.safetensors")
    digest = hashlib.sha256((tmp_path / "weights.safetensors").read_bytes()).hexdigest()
    (tmp_path / "network.json").write_text(json.dumps(description | {"sha256": digest}))
    with pytest.raises(RunFolderError, match="an intact trained network"):
        read_network(tmp_path)


@pytest.mark.parametrize("name", ["class", "torch", "safetensors", "numpy", "math", "typing", "__init__", "a-b", "1st"])
def test_python_module_that_could_not_be_imported_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match=r"--out: got .*; allowed: a name that Python can import"):
        export_network(trained(), "python", tmp_path / f"{name}.py")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("safetensors", f"net{suffix}") for suffix in (".safetensors", ".json", ".safetensors.md")),
        *(("python", f"net{suffix}") for suffix in (".py", ".safetensors", ".py.md")),
        ("torch-export", "net.pt2.md"),
    ],
)
def test_export_leaves_files_that_it_did_not_write(kind, name, tmp_path):
    (tmp_path / name).write_text("notes")
    with pytest.raises(RunFolderError, match=rf"--out: got .*; allowed: a name that is free: {name} ") as caught:
        export_network(trained(), kind, tmp_path / f"net{FORMATS[kind].suffix}")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "notes"


def test_export_replaces_an_earlier_one_of_its_format_and_no_other(tmp_path):
    export_network(trained(), "safetensors", tmp_path / "net.safetensors")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunFolderError, match=r"net.safetensors of this folder would .* is no earlier export as python"):
        export_network(trained(), "python", tmp_path / "net.py")
    export_network(trained(), "torch-export", tmp_path / "net.pt2")
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(after) - set(before) == {"net.pt2", "net.pt2.md"}
    assert before.items() <= after.items()
    (tmp_path / "net.safetensors.md").rename(tmp_path / "net.md")  # as version 0.1 called it
    again = trained(seed=1)
    result = export_network(again, "safetensors", tmp_path / "net.safetensors")
    assert [path.name for path in result.files] == ["net.safetensors", "net.json", "net.safetensors.md"]
    pixels = pixels_of(again, 1)
    assert np.array_equal(logits(read_network(tmp_path, "net.safetensors", "net.json"), pixels), logits(again, pixels))


def test_export_follows_a_link_and_leaves_pipes_alone(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "latest.pt2").symlink_to(tmp_path / "folder" / "net.pt2")
    result = export_network(trained(), "torch-export", tmp_path / "latest.pt2")
    assert result.files == (tmp_path / "latest.pt2", tmp_path / "latest.pt2.md")
    assert (tmp_path / "latest.pt2").is_symlink()
    assert (tmp_path / "folder" / "net.pt2").is_file()
    os.mkfifo(tmp_path / "pipe.pt2")
    with pytest.raises(UserError, match="no pipe"):
        export_network(trained(), "torch-export", tmp_path / "pipe.pt2")
    assert stat.S_ISFIFO((tmp_path / "pipe.pt2").stat().st_mode)


def test_export_of_a_run_without_retrained_networks_is_refused(command, tmp_path):
    code, _, err = command("export", tmp_path, "--format", "onnx")
    assert (code, err.count("\n")) == (2, 1)
    assert "a run folder, or a folder retrained/<job>" in err
