"""Latency and memory: the peak by hand, percentiles in order, and the command that keeps them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from dnad_ray.deploy.measure import measure, peak_bytes
from dnad_ray.errors import ConfigError
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.run_folder.jobs import read_measurements
from dnad_ray.run_folder.metrics import METRICS
from dnad_ray.run_folder.writing import write_measurement
from search_spaces.shape import ImageShape
from search_spaces.space import space_named

CPU = torch.device("cpu")
IMAGES = ImageShape(in_channels=1, image_size=8, num_classes=10)
SMALL = NetworkSpec(
    origin="search", genotype=space_named("dnad", None, 3, 2).uniform(("skip_connect",)), init_channels=4
)


class Chain(nn.Module):
    """Each result is freed when the next one stands, but for the input, which the caller holds."""

    def forward(self, x):
        for _ in range(5):
            x = x + 1
        return x


class Fan(nn.Module):
    """All results live until the end."""

    def forward(self, x):
        return sum([x + step for step in range(5)])


def test_peak_memory_of_a_chain_is_two_results_and_the_input():
    batch = torch.zeros(2, 1, 8, 8)
    assert peak_bytes(Chain(), batch) == 3 * batch.numel() * 4


def test_peak_memory_of_what_is_kept_grows_with_it():
    batch = torch.zeros(2, 1, 8, 8)
    # Input, five terms, and two sums at a time.
    assert peak_bytes(Fan(), batch) == (1 + 5 + 2) * batch.numel() * 4


def test_peak_memory_counts_weights_once_and_views_not_at_all():
    class Halves(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(100))
            self.again = self.weight

        def forward(self, x):
            return x[:, :, ::2].flatten(1).view(-1) if len(x) > 99 else x[:, :, ::2]

    batch = torch.zeros(2, 1, 8, 8)
    assert peak_bytes(Halves(), batch) == batch.numel() * 4 + 400


def test_peak_memory_does_not_load_the_compiler():
    code = (
        "import sys, torch; from dnad_ray.deploy.measure import peak_bytes\n"
        "peak_bytes(torch.nn.Linear(2, 2), torch.ones(1, 2)); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "False", "")


def test_measurement_has_ordered_percentiles_and_larger_batches_take_more():
    small, large = (measure(SMALL, IMAGES, CPU, run="r", batch_size=size, repeats=10) for size in (1, 64))
    for found in (small, large):
        assert 0 < found.latency_p50 <= found.latency_p90 <= found.latency_p99
    assert large.latency_p50 > small.latency_p50
    assert large.peak_memory > small.peak_memory
    assert {"latency_p50", "latency_p90", "latency_p99", "peak_memory"} <= set(METRICS)
    assert all(METRICS[name].minimise for name in ("latency_p50", "latency_p90", "latency_p99", "peak_memory"))


def test_measurement_leaves_threads_as_they_were_and_is_read_again(tmp_path):
    before = torch.get_num_threads()
    found = measure(SMALL, IMAGES, CPU, run=tmp_path.name, repeats=2, threads=before + 1)
    assert torch.get_num_threads() == before
    write_measurement(tmp_path, found)
    write_measurement(tmp_path, found)  # again: in its place
    records, problems = read_measurements(tmp_path)
    assert (records, problems) == ([found.to_dict()], [])


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"repeats": 0}, {"threads": 0}, {"batch_size": 10**6}, {"threads": 10**11}]
)
def test_measurement_of_impossible_numbers_is_refused(wrong):
    with pytest.raises(ConfigError, match="got"):
        measure(SMALL, IMAGES, CPU, run="r", **wrong)


def test_measure_command_refuses_what_is_no_run(command, tmp_path):
    code, _, err = command("measure", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    (tmp_path / "run.json").write_text(json.dumps({"kind": "dnad-ray run", "schema": 1}))
    code, _, err = command("measure", tmp_path, "--device", "tpu")
    assert code == 2
    assert "tpu" in err
