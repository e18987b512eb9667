"""The formats of one network side by side."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest

from dnad_ray.data.images import Augmentation, ImageData
from dnad_ray.deploy import benchmark as benchmarking
from dnad_ray.deploy import export as exporting
from dnad_ray.deploy.benchmark import BenchmarkRow, benchmark_network, num_images_for, ranking_changes
from search_spaces.genotype import CellGenotype, Edge

KINDS = ["safetensors", "torch-export", "onnx", "openvino", "onnx-int8"]
HAS_OPENVINO = importlib.util.find_spec("openvino") is not None


@pytest.fixture(scope="module")
def trained(network_of):
    return dataclasses.replace(network_of(CellGenotype(False, ((Edge("sep_conv_3x3", 1),),))), facts={"job": "j"})


@pytest.fixture(scope="module")
def data(noise):
    return ImageData(
        name="noise", classes=("ant", "bee", "cow"), train=noise(40, 0), validation=noise(60, 1),
        mean=(0.4,), std=(0.3,), augmentation=Augmentation(),
    )  # fmt: skip


def test_benchmark_has_a_row_per_format_with_the_accuracy_of_the_images_asked_for(trained, data):
    rows = benchmark_network(trained, data, images=50, repeats=3)
    assert [row.format for row in rows] == KINDS
    if not HAS_OPENVINO:
        assert "[openvino]" in rows.pop(3).missing
    assert [row.precision for row in rows] == ["float32"] * (len(rows) - 1) + ["int8"]
    assert {(row.digest, row.job, row.num_images, row.missing) for row in rows} == {
        (trained.spec.digest, "j", 50, None)
    }
    assert len({row.accuracy for row in rows[:3]}) == 1
    assert [row.agreement for row in rows[:3]] == [1] * 3
    assert all(0 < row.latency_p50 <= row.latency_p95 for row in rows)
    weights = sum(tensor.numel() * tensor.element_size() for tensor in trained.network.state_dict().values())
    assert rows[0].size > weights


def test_benchmark_says_why_a_format_cannot_be_had(trained, data, monkeypatch):
    def spec_of(name):
        return None if name in ("onnxruntime", "openvino") else object()

    monkeypatch.setattr(exporting, "find_spec", spec_of)
    rows = benchmark_network(trained, data, images=5, repeats=1)
    missing = {row.format: row.missing for row in rows if row.missing}
    assert list(missing) == ["onnx", "openvino", "onnx-int8"]
    assert "[openvino]" in missing["openvino"]
    assert "onnxruntime is not" in missing["onnx"]
    assert "[export]" in missing["onnx-int8"]
    assert all(row.size is None and row.latency_p50 is None for row in rows if row.missing)


def test_benchmark_says_which_format_gives_other_outputs(trained, data, monkeypatch):
    form = exporting.FORMATS["onnx"]
    monkeypatch.setitem(
        exporting.FORMATS, "onnx", form._replace(read=lambda *_: lambda pixels: np.ones((len(pixels), 3)))
    )
    monkeypatch.setattr(benchmarking, "_WAYS", {"onnx": benchmarking._WAYS["onnx"]})
    (row,) = benchmark_network(trained, data, images=5, repeats=1)
    assert "other outputs" in row.missing


@pytest.mark.parametrize(
    ("macs", "available", "wanted", "number"),
    [(10**9, 9999, None, 500), (10**8, 9999, None, 2000), (None, 9999, None, 500), (10**8, 70, None, 70),
     (10**9, 9999, 3000, 3000), (1, 40, 50, 40)],
)  # fmt: skip
def test_number_of_images_is_bounded_by_cost_unless_it_is_asked_for(macs, available, wanted, number):
    assert num_images_for(macs, available, wanted) == number


def test_ranking_changes_are_the_pairs_that_8_bits_turn_round():
    def rows(job, whole, small):
        return [
            BenchmarkRow(digest=job, job=job, format=kind, precision=precision, accuracy=accuracy)
            for kind, precision, accuracy in (("onnx", "float32", whole), ("onnx-int8", "int8", small))
        ]

    several = [*rows("a", 0.9, 0.7), *rows("b", 0.8, 0.79), *rows("c", 0.6, 0.6), *rows("d", 0.95, None)]
    assert ranking_changes(several) == [("a", "b")]
    assert ranking_changes(rows("a", 0.9, 0.7)) == []
    assert ranking_changes([*rows("a", 0.9, 0.8), *rows("b", 0.8, 0.8)]) == []  # a tie turns nothing round
