"""Latency as a sum over parts: which parts are counted, checked under a clock that adds up; and real clocks."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from dnad_ray.errors import ConfigError
from dnad_ray.networks import latency, latency_limit
from dnad_ray.networks.latency import LatencyTable, check_runtime, latency_table_for, milliseconds_in
from dnad_ray.networks.latency_limit import LatencyLimit
from dnad_ray.networks.spec import NetworkSpec
from dnad_ray.retrain.race import plain_members
from search_spaces.network import network_from
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import space_named

IMAGES = ImageShape(in_channels=3, image_size=16, num_classes=10)
SPACES = {"device": "half", "nas-bench-201": "cifar", "dnad": "cifar"}


def random_genotype(space, rng):
    """One or two candidates on each node."""
    while True:
        cells = tuple(
            replace(cell, nodes=tuple(tuple(sorted(rng.sample(node, rng.randint(1, 2)))) for node in cell.nodes))
            for cell in space.dense().cells
        )
        genotype = replace(space.dense(), cells=cells)
        if genotype.is_connected:
            return genotype.pruned()


@pytest.fixture
def clock(monkeypatch):
    """Makes a clock of some layers: a call costs 0.25 ms, each of them what a function says; it lists what it times."""

    def make(price):
        timed = []

        def milliseconds(runtime, module, images, *, threads, repeats=1):
            timed.append(module)
            found, hooks = [0.25], []
            for layer in module.modules():  # one that runs three times calls its hook three times
                hooks.append(layer.register_forward_hook(lambda *call: found.append(price(call[0], call[2]))))
            with torch.no_grad():
                module.eval()(images)
            for hook in hooks:
                hook.remove()
            return [1e9, sum(found), 0.0]  # the median counts

        monkeypatch.setattr(latency, "milliseconds_in", milliseconds)
        return milliseconds, timed

    return make


def convolutions_and_norms(layer, output):
    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
        return output.shape[1] * output.shape[2] / 8 + (2 if isinstance(layer, nn.Conv2d) else 1)
    return 0.0


@pytest.mark.parametrize("name", SPACES)
def test_estimate_is_exact_where_latency_is_a_sum(name, clock):
    milliseconds, timed = clock(convolutions_and_norms)
    space, rng = space_named(name, None, 6, 2 if name == "device" else 3), random.Random(0)
    shape = NetworkShape(images=IMAGES, init_channels=8, stem=SPACES[name])
    table = LatencyTable(shape, space.usual_teacher(), "torch")
    for genotype in [random_genotype(space, rng) for _ in range(4)]:
        network = network_from(genotype, shape)
        expected = milliseconds("torch", network, torch.zeros(1, 3, 16, 16), threads=1)[1]
        assert table.milliseconds_of(genotype) == pytest.approx(expected)
    before = len(timed)
    table.milliseconds_of(genotype)
    assert len(timed) == before  # each part was timed once


def test_estimate_counts_the_sums_and_the_relus_of_cells(clock):
    clock(lambda layer, output: {"_Twice": 1.0, "ReLU": 10.0}.get(type(layer).__name__, 0.0))
    space = space_named("device", None, 6, 2)
    shape = NetworkShape(images=IMAGES, init_channels=8, stem="half")
    full, lean = plain_members(space)[0], plain_members(space)[-1]  # the second has only skips
    table = LatencyTable(shape, lean, "torch")
    # In each of six cells one sum, and the ReLU of its input and of its first node; a skip reads its input as it is.
    assert table.milliseconds_of(full) - table.milliseconds_of(lean) == pytest.approx(6 * (1 + 2 * 10))


@pytest.mark.parametrize("runtime", latency.RUNTIMES)
def test_clocks_of_the_runtimes_time_networks_and_leave_random_streams_alone(runtime):
    pytest.importorskip(runtime)
    space = space_named("device", None, 3, 2)
    shape = NetworkShape(images=IMAGES, init_channels=8, stem="half")
    network = network_from(space.usual_teacher(), shape)
    found = milliseconds_in(runtime, network, torch.zeros(2, 3, 16, 16), repeats=7)
    assert len(found) == 7
    assert min(found) > 0
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    table = latency_table_for(shape, space.usual_teacher(), runtime)
    assert table.milliseconds_of(space.usual_teacher()) > 0
    assert torch.equal(torch.rand(1), expected)


def test_unknown_and_missing_runtimes_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="--runtime: got 'tvm'; allowed: onnxruntime, torch"):
        check_runtime("tvm")
    monkeypatch.setattr(latency, "find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(ConfigError, match="one that is installed"):
        check_runtime("onnxruntime")
    assert latency.default_runtime() == "torch"


def test_limit_is_kept_by_the_time_of_the_network_and_seems_so_by_its_estimate(monkeypatch):
    space = space_named("device", None, 3, 2)
    spec = NetworkSpec(origin="plain", genotype=space.usual_teacher(), init_channels=8, stem="half")
    limit = LatencyLimit(10.0, "torch", space.usual_teacher())
    for times, expected in (((9.0, 9.9), (True, True)), ((10.4, 10.1), (True, False)), ((10.6, 9.0), (False, True))):

        class Table:
            def milliseconds_of(self, genotype, found=times[0]):
                return found

        monkeypatch.setattr(latency_limit, "latency_table_for", lambda *_, table=Table: table())
        monkeypatch.setattr(latency_limit, "measured_milliseconds", lambda *_, found=times[1]: found)
        assert (limit.seems_kept(spec, IMAGES), limit.is_kept(spec, IMAGES)) == expected
