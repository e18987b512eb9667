"""Prediction: every format that is read says the same, and what is no model, or a changed one, is refused in a line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.transformers.float16 import convert_float_to_float16
from PIL import Image

from dnad_ray.deploy.export import export_network
from dnad_ray.deploy.formats import Deployed
from dnad_ray.deploy.predict import open_model
from dnad_ray.networks.network_file import write_network
from dnad_ray.text import install_command
from search_spaces.genotype import CellGenotype, Edge


@pytest.fixture(scope="module")
def trained(network_of):
    return network_of(CellGenotype(False, ((Edge("sep_conv_3x3", 1), Edge("avg_pool_3x3", 1)),)))


@pytest.fixture
def job(tmp_path, digits, trained) -> Path:
    folder = tmp_path / "job"
    network = trained
    data = dataclasses.replace(digits, classes=network.classes, mean=network.mean, std=network.std)
    write_network(folder, network.network, network.spec, data, dict(network.facts))
    return folder


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return path


@pytest.mark.slow
def test_predict_agrees_over_all_formats_that_it_reads(command, job, picture, tmp_path, trained):
    for kind, name in (("onnx", "net.onnx"), ("safetensors", "net.safetensors")):
        code, out, err = command("export", job, "--format", kind, "--out", tmp_path / name)
        assert code == 0, err
        assert "read again" in out
    results = [
        json.loads(command("predict", model, picture, "--json")[1])
        for model in (job, tmp_path / "net.onnx", tmp_path / "net.safetensors")
    ]
    pixels = np.asarray(Image.open(picture), np.float32)[None, None] / 255
    with torch.no_grad():
        row = Deployed(trained).eval()(torch.from_numpy(pixels)).numpy()[0].astype(float)
    shares = np.exp(row) / np.exp(row).sum()
    for (found,) in results:
        assert found["classes"][0] == ("ant", "bee", "cow")[int(shares.argmax())]
        assert found["probabilities"] == pytest.approx(sorted(shares, reverse=True), abs=1e-4)


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory, trained) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "net.onnx"
    export_network(trained, "onnx", file)
    return file


def test_predict_feeds_what_a_converted_file_takes(command, onnx_file, picture, tmp_path):
    half = convert_float_to_float16(onnx.load(onnx_file))
    onnx.save(half, tmp_path / "half.onnx")
    assert onnxruntime.InferenceSession(str(tmp_path / "half.onnx")).get_inputs()[0].type == "tensor(float16)"
    (whole,), (found,) = (
        json.loads(command("predict", file, picture, "--json")[1]) for file in (onnx_file, tmp_path / "half.onnx")
    )
    assert found["classes"] == whole["classes"]
    assert found["probabilities"] == pytest.approx(whole["probabilities"], abs=2e-2)


def _metadata(model, **changes):
    for entry in model.metadata_props:
        if entry.key in changes:
            entry.value = json.dumps(changes[entry.key])


def _integer_input(model):
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    model.graph.node.insert(0, onnx.helper.make_node("Cast", ["images"], ["cast"], to=onnx.TensorProto.FLOAT))
    for node in list(model.graph.node)[1:]:
        node.input[:] = ["cast" if name == "images" else name for name in node.input]


def _fails_when_run(model):
    shape = onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [2], [7, 7])
    model.graph.initializer.append(shape)
    model.graph.node.append(onnx.helper.make_node("Reshape", ["logits", "size"], ["squares"]))
    model.graph.output[0].name = "squares"
    for dim, size in zip(model.graph.output[0].type.tensor_type.shape.dim, (7, 7), strict=True):
        dim.dim_value = size


def _not_finite(model):
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor) * np.float32(np.nan)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))


IMAGES = {"in_channels": 1, "image_size": 8, "num_classes": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda model: _metadata(model, images=IMAGES | {"image_size": 16}), "its images are 1 x 16 x 16"),
        (lambda model: _metadata(model, images=IMAGES | {"in_channels": 3}), "its images are 3 x 8 x 8"),
        (lambda model: _metadata(model, images=IMAGES | {"image_size": 10**9}), "impossible images"),
        (lambda model: _metadata(model, images=[1, 8, 3]), "an ONNX file that `dnad-ray export` wrote"),
        (
            lambda model: _metadata(model, images=IMAGES | {"num_classes": 4}, classes=["a", "b", "c", "d"]),
            "finite logits of shape (1, 4)",
        ),
        (_integer_input, "tensor(int64)"),
        (_fails_when_run, "an ONNX file that runs on its images"),
        (_not_finite, "0 of them finite"),
    ],
)
def test_predict_by_a_changed_onnx_file_is_refused_in_one_line(command, onnx_file, picture, tmp_path, change, words):
    model = onnx.load(onnx_file)
    change(model)
    onnx.save(model, tmp_path / "changed.onnx")
    code, out, err = command("predict", tmp_path / "changed.onnx", picture)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert err.startswith("dnad-ray: error: MODEL: got ")
    assert words in err, err


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("net.onnx", b"no model", ["net.onnx", "ONNX"]),
        ("net.safetensors", b"no weights", ["net.json"]),
        ("net.pt2", b"", ["pickles"]),
        ("net.py", b"", ["program"]),
        ("net.txt", b"", [".onnx"]),
        ("none.onnx", None, ["none.onnx", "a file that exists"]),
        ("none.safetensors", None, ["none.safetensors", "a file that exists"]),
        (".", None, ["MODEL", "retrained/<job>"]),
    ],
)
def test_predict_by_what_is_no_model_is_refused(command, picture, tmp_path, name, content, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    code, _, err = command("predict", tmp_path / name, picture)
    assert (code, err.count("\n"), "Traceback" in err) == (2, 1, False), err
    assert all(word in err for word in words), err


def test_predict_names_broken_images_after_those_that_are_fine(command, job, picture, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    files = (tmp_path / "none.png", picture, tmp_path / "broken.png", picture)
    code, out, err = command("predict", job, *files)
    assert (code, err.count("\n")) == (2, 1)
    assert [line.split(":")[0] for line in out.splitlines()] == [str(picture)] * 2
    assert "2 files: " in err
    assert all(name in err for name in ("none.png", "broken.png"))
    code, out, _ = command("predict", job, *files, "--json")
    assert (code, [row["file"] for row in json.loads(out)]) == (2, [str(picture)] * 2)


@pytest.mark.parametrize(
    ("kind", "name"), [("safetensors", "net.safetensors"), pytest.param("onnx", "net.onnx", marks=pytest.mark.slow)]
)
def test_predict_sees_images_of_16_bits_as_training_did(kind, name, trained, tmp_path):
    network = dataclasses.replace(trained, full_level=4095)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.ceil(pixels * 4095 / 255).astype(np.uint16)).save(tmp_path / "16.png")
    export_network(network, kind, tmp_path / name)
    model = open_model(tmp_path / name)
    assert model.full_level == 4095
    first, second = model.predict([tmp_path / "8.png", tmp_path / "16.png"])
    assert first.shares == second.shares


def test_predict_without_the_reader_of_onnx_is_refused(command, picture, tmp_path, monkeypatch):
    monkeypatch.setattr("dnad_ray.deploy.predict.find_spec", lambda name: None)
    (tmp_path / "net.onnx").write_bytes(b"")
    code, _, err = command("predict", tmp_path / "net.onnx", picture)
    assert code == 2
    assert install_command("export") in err
