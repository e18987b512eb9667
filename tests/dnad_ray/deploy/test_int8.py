"""Quantised networks: read again by the runtime, compared on images, calibrated on training images only."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from dnad_ray.deploy import export as exporting
from dnad_ray.deploy.export import ExportError, export_int8
from dnad_ray.deploy.formats import Deployed
from dnad_ray.deploy.int8 import agreement_of, calibration_images, int8_format, predicted
from dnad_ray.deploy.predict import open_model
from dnad_ray.errors import ConfigError, RunFolderError
from search_spaces.genotype import CellGenotype, Edge

CELL = CellGenotype(False, ((Edge("sep_conv_3x3", 1), Edge("avg_pool_3x3", 1)),))


@pytest.fixture(scope="module")
def trained(network_of):
    return network_of(CELL)


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory, noise):
    file = tmp_path_factory.mktemp("int8") / "net.int8.onnx"
    return export_int8(trained, file, noise(300, 0), noise(50, 1))


def test_int8_file_holds_weights_of_8_bits_and_runs_with_any_batch(exported):
    file, card = exported.files
    assert sorted(file.parent.iterdir()) == [file, card]
    graph = onnx.load(file).graph
    weights = [entry for entry in graph.initializer if len(entry.dims) == 4]
    assert weights
    assert {entry.data_type for entry in weights} == {onnx.TensorProto.INT8}
    # Of 7 bits, so that no product of two of them saturates.
    assert all(np.abs(onnx.numpy_helper.to_array(entry).astype(int)).max() <= 64 for entry in weights)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        (found,) = session.run(["logits"], {"images": np.full((batch, 1, 8, 8), 0.5, np.float32)})
        assert found.shape == (batch, 3)
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == ["ant", "bee", "cow"]


def test_agreement_is_that_of_the_file_and_the_network_on_the_images_held_out(exported, trained, noise):
    held_out, agreement = noise(50, 1), exported.agreement
    ours = open_model(exported.files[0]).run(held_out.images.astype(np.float32) / 255).argmax(1)
    import torch

    with torch.no_grad():
        theirs = Deployed(trained).eval()(torch.from_numpy(held_out.images.astype(np.float32) / 255)).argmax(1).numpy()
    assert agreement.agreement == np.mean(ours == theirs) >= 0.9
    assert agreement.accuracy == np.mean(ours == held_out.labels)
    assert agreement.float_accuracy == np.mean(theirs == held_out.labels)
    assert f"same class as the float network for {agreement.agreement:.2%} of 50" in exported.files[1].read_text()


def test_calibration_takes_256_images_of_the_whole_training_part_in_0_to_1(noise):
    train = noise(300, 0)
    train.images[:, 0, 0, 0] = np.minimum(np.arange(300), 255)
    found = calibration_images(train)
    assert (found.shape, found.dtype) == ((256, 1, 8, 8), np.float32)
    assert (found.min(), found.max()) == (0, 1)
    assert found[:10, 0, 0, 0].std() > 0.1  # not those of the first class alone
    assert np.array_equal(found, calibration_images(train))


def test_calibration_sets_the_ranges(trained, tmp_path):
    # Ranges of dark images are too small for bright ones: the file depends on the images that calibrate it.
    for name, level in (("dark", 0.01), ("bright", 1.0)):
        pixels = np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32) * np.float32(level)
        int8_format(pixels).write(trained, tmp_path / name)
    assert (tmp_path / "dark").read_bytes() != (tmp_path / "bright").read_bytes()


@pytest.mark.parametrize(("lost", "won", "is_worse"), [(5, 0, True), (4, 0, False), (10, 9, False), (0, 9, False)])
def test_accuracy_is_worse_where_the_sign_test_says_so(lost, won, is_worse):
    # One-sided p of 5 of 5 is 1/32, of 4 of 4 is 1/16.
    labels = np.zeros(100, np.int64)
    reference, ours = np.zeros(100, np.intp), np.zeros(100, np.intp)
    ours[:lost] = 1
    reference[50 : 50 + won] = 1
    found = agreement_of(ours, reference, labels)
    assert found.is_worse == is_worse
    assert found.agreement == 1 - (lost + won) / 100


def test_predicted_classes_are_of_the_positions_asked_for(noise):
    held_out = noise(40, 2)
    found = predicted(lambda pixels: pixels.reshape(len(pixels), -1)[:, :3], held_out, np.array([39, 0]))
    expected = held_out.images.reshape(40, -1)[[39, 0], :3].argmax(1)
    assert found.tolist() == expected.tolist()


def test_int8_file_that_gives_no_finite_logits_leaves_nothing(trained, tmp_path, monkeypatch, noise):
    def broken(calibration):
        return int8_format(calibration)._replace(read=lambda *_: lambda pixels: np.full((len(pixels), 3), np.nan))

    monkeypatch.setattr(exporting, "int8_format", broken)
    with pytest.raises(ExportError, match="not finite"):
        export_int8(trained, tmp_path / "net.int8.onnx", noise(20, 0), noise(20, 1))
    assert list(tmp_path.iterdir()) == []


def test_int8_target_has_its_suffix_and_replaces_no_float_export(trained, tmp_path, noise):
    with pytest.raises(ConfigError, match=r"ends with \.int8\.onnx"):
        export_int8(trained, tmp_path / "net.onnx", noise(20, 0), noise(20, 1))
    (tmp_path / "net.int8.onnx").write_bytes(b"mine")
    with pytest.raises(RunFolderError, match="a name that is free"):
        export_int8(trained, tmp_path / "net.int8.onnx", noise(20, 0), noise(20, 1))
    assert (tmp_path / "net.int8.onnx").read_bytes() == b"mine"
