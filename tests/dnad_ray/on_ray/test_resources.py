"""What a trial gets of a cluster, worked out by hand; no Ray is started."""

from __future__ import annotations

import pytest
import torch

from dnad_ray.errors import ConfigError, ResourceError
from dnad_ray.on_ray.resources import Allotment, Node, allot, check_parts, check_requests, idle_in_words
from dnad_ray.runtime import devices
from dnad_ray.runtime.devices import limit_memory

LAPTOP = [Node(cpus=2, gpus=0)]
GPU_BOX = [Node(cpus=16, gpus=4)]


def given(config, nodes):
    result = allot(config, nodes)
    return result.cpus, result.gpus, result.num_parallel(nodes)


@pytest.mark.parametrize(
    ("nodes", "parallel"),
    [(LAPTOP, 2), ([Node(64, 0)], 64), ([Node(4, 0), Node(3, 0)], 7), ([Node(0, 0), Node(2, 0)], 2)],
)
def test_allot_gives_cpu_trials_a_thread_each_on_every_machine(nodes, parallel, tiny):
    assert given(tiny(), nodes) == (1, 0, parallel)


@pytest.mark.parametrize(
    ("overrides", "nodes", "parallel", "hint"),
    [
        ({}, [Node(16, 0)], 9, None),  # two CPUs each for nine would be too many
        ({}, [Node(16, 0)], 5, "sweep.cpus_per_trial=3 would use 15 of 16 CPUs, not 5"),
        ({}, [Node(4, 0), Node(3, 0)], 3, "sweep.cpus_per_trial=2 would use 6 of 7 CPUs, not 3"),
        ({}, [Node(4, 0), Node(3, 0)], 2, "sweep.cpus_per_trial=3 would use 6 of 7 CPUs, not 2"),
        ({}, LAPTOP, 1, "sweep.cpus_per_trial=2 would use 2 of 2 CPUs, not 1"),
        ({"train.num_processes": 2}, [Node(8, 0)], 2, "sweep.cpus_per_trial=4 would use 8 of 8 CPUs, not 4"),
        ({"sweep.cpus_per_trial": 1}, [Node(16, 0)], 1, None),  # whoever asked for one knows
        ({}, GPU_BOX, 2, None),
        ({"sweep.cpus_per_trial": 0.5}, [Node(1, 2)], 2, None),
    ],
)
def test_idle_cpus_are_pointed_out(overrides, nodes, parallel, hint, tiny):
    config = tiny({"train.device": "auto", **overrides})
    said = idle_in_words(config, allot(config, nodes), nodes, parallel)
    assert said is None if hint is None else said.startswith(hint)


@pytest.mark.parametrize(
    ("overrides", "nodes", "expected"),
    [
        ({}, GPU_BOX, (4, 1, 4)),
        ({"sweep.gpus_per_trial": 0.5}, GPU_BOX, (2, 0.5, 8)),
        ({"sweep.gpus_per_trial": 0.3}, [Node(8, 1)], (2, 0.3, 3)),  # three fit on a GPU, not three and a third
        ({"sweep.gpus_per_trial": 0.7}, [Node(8, 2)], (2, 0.7, 2)),  # a trial never has parts of two GPUs
        ({"sweep.gpus_per_trial": 0.25}, [Node(2, 1)], (0.5, 0.25, 4)),  # fewer CPUs than trials on the GPU
        ({"sweep.gpus_per_trial": 0}, GPU_BOX, (1, 0, 16)),
        ({"train.device": "cpu"}, GPU_BOX, (1, 0, 16)),
        ({"sweep.cpus_per_trial": 2}, GPU_BOX, (2, 1, 4)),
        ({"sweep.cpus_per_trial": 0.5}, [Node(1, 2)], (0.5, 1, 2)),
        ({}, [Node(32, 0), Node(64, 1)], (9, 1, 1)),  # never more than nine
        ({"train.num_processes": 2}, GPU_BOX, (4, 1, 2)),
        ({"train.num_processes": 4}, [Node(8, 2), Node(16, 2)], (4, 1, 1)),  # over two nodes
        ({"train.num_processes": 2, "sweep.gpus_per_trial": 2, "sweep.cpus_per_trial": 4}, GPU_BOX, (2, 1, 2)),
    ],
)
def test_allot_on_gpus(overrides, nodes, expected, tiny):
    cpus, gpus, parallel = given(tiny({"train.device": "auto", **overrides}), nodes)
    assert (cpus, gpus, parallel) == expected


def test_allot_to_several_processes_on_cpus(tiny):
    assert given(tiny({"train.num_processes": 2}), LAPTOP) == (1, 0, 1)
    assert given(tiny({"train.num_processes": 2, "sweep.cpus_per_trial": 4}), [Node(16, 0)]) == (2, 0, 4)
    # Processes of a trial need not be neighbours.
    assert given(tiny({"train.num_processes": 3}), [Node(1, 0)] * 3) == (1, 0, 1)


@pytest.mark.parametrize(("cpus", "threads"), [(0.5, 1), (1, 1), (3, 3)])
def test_threads_are_whole_and_no_more_than_cpus(cpus, threads):
    assert Allotment(processes=1, cpus=cpus, gpus=1).threads == threads


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"sweep.cpus_per_trial": 1.5}, r"sweep.cpus_per_trial: got 1.5; allowed: a whole number"),
        ({"sweep.cpus_per_trial": 0.5, "train.device": "cpu"}, r"got 0.5; allowed: at least 1"),
        ({"sweep.cpus_per_trial": 0.5, "sweep.gpus_per_trial": 0}, r"got 0.5; allowed: at least 1"),
        ({"sweep.cpus_per_trial": 3, "train.num_processes": 2}, r"got 3.0; allowed: a whole multiple of .* \(2\)"),
        ({"sweep.gpus_per_trial": 0.5, "train.device": "cpu"}, r"gpus_per_trial: got 0.5; .* train.device 'cpu'"),
        ({"sweep.gpus_per_trial": 0, "train.device": "cuda"}, r"gpus_per_trial: got 0.0; allowed: above 0"),
        ({"sweep.gpus_per_trial": 1.5}, r"gpus_per_trial: got 1.5; allowed: 0 to 1: .*train.num_processes"),
        ({"sweep.gpus_per_trial": 2}, r"gpus_per_trial: got 2.0; allowed: 0 to 1"),
        ({"sweep.gpus_per_trial": 1, "train.num_processes": 2}, r"gpus_per_trial: got 1.0; allowed: 0, 2 or null"),
    ],
)
def test_requests_that_contradict_themselves_are_refused_in_words(overrides, words, tiny):
    config = tiny({"train.device": "auto", **overrides})
    with pytest.raises(ConfigError, match=words):
        check_requests(config)
    with pytest.raises(ConfigError, match=words):
        allot(config, GPU_BOX)


@pytest.mark.parametrize(
    ("overrides", "nodes", "words"),
    [
        ({"sweep.cpus_per_trial": 4}, LAPTOP, r"cpus_per_trial: got 4.0; allowed: at most 2, what the largest node"),
        ({"sweep.cpus_per_trial": 4}, LAPTOP * 2, r"cpus_per_trial: got 4.0; allowed: at most 2,"),  # not the sum
        ({"sweep.cpus_per_trial": 0.5}, LAPTOP, r"got 0.5; allowed: at least 1 on a cluster without GPUs"),
        ({"sweep.gpus_per_trial": 0.5}, LAPTOP, r"gpus_per_trial: got 0.5; allowed: at most 0,"),
        (
            {"sweep.gpus_per_trial": 1, "sweep.cpus_per_trial": 4},
            [Node(8, 0), Node(2, 1)],
            r"a node that has 4 CPUs and",
        ),
        ({"train.num_processes": 3}, LAPTOP, r"num_processes: got 3; allowed: at most 2"),
        ({"train.num_processes": 2, "sweep.cpus_per_trial": 6}, LAPTOP, r"got 6.0; allowed: at most 2 for each of 2"),
    ],
)
def test_what_the_cluster_never_has_is_refused_in_words(overrides, nodes, words, tiny):
    with pytest.raises(ResourceError, match=words):
        allot(tiny({"train.device": "auto", **overrides}), nodes)


def test_a_batch_has_two_images_for_each_process(tiny):
    assert tiny({"train.num_processes": 32}).train.num_processes == 32  # batches of 64
    with pytest.raises(ConfigError, match=r"train.num_processes: got 33; allowed: at most 32"):
        tiny({"train.num_processes": 33})
    with pytest.raises(ConfigError, match=r"train.num_processes: got 2; allowed: 1 with cuda_graphs"):
        tiny({"train.num_processes": 2, "train.cuda_graphs": True, "train.device": "auto"})


@pytest.mark.parametrize(
    ("name", "assignment", "words"),
    [
        ("search", "train.num_processes=2", "train.num_processes: got 2; allowed: 1 for search"),
        ("sweep", "sweep.gpus_per_trial=0.5", "sweep.gpus_per_trial: got 0.5; allowed: 0 or null with train.device"),
        ("sweep", "sweep.grid.train.num_processes=[1, 2]", "train.num_processes)"),
    ],
)
def test_command_refuses_in_one_line_and_leaves_nothing(name, assignment, words, command, config_file, tmp_path):
    code, _, err = command(name, config_file, "--set", assignment, "--out", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert words in err
    assert not (tmp_path / "run").exists()


def test_images_that_are_too_few_for_the_processes_are_refused(tiny):
    check_parts(tiny({"train.num_processes": 4}), 8)
    check_parts(tiny(), 1)
    with pytest.raises(ConfigError, match=r"train.num_processes: got 4; allowed: at most 3 with 7 training images"):
        check_parts(tiny({"train.num_processes": 4}), 7)


def test_memory_of_a_fraction_of_a_gpu_is_limited_to_that(monkeypatch):
    asked = []
    monkeypatch.setattr(devices.torch.cuda, "set_per_process_memory_fraction", lambda *args: asked.append(args))
    gpu = torch.device("cuda")
    for share in (0.0, 0.5, 1.0):
        limit_memory(gpu, share)
    limit_memory(torch.device("cpu"), 0.5)
    assert asked == [(0.5, gpu)]


@pytest.mark.gpu
def test_memory_beyond_the_fraction_is_refused_on_a_gpu():
    device = torch.device("cuda", torch.cuda.current_device())
    total = torch.cuda.get_device_properties(device).total_memory
    limit_memory(device, 0.1)
    try:
        with pytest.raises(torch.cuda.OutOfMemoryError):
            torch.empty(total // 5, dtype=torch.uint8, device=device)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
