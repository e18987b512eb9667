"""A search in two real processes (gloo): the same bits in both, and the gradient of the whole batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dnad_ray.config.run import config_to_dict
from dnad_ray.data.batches import TrainingBatches
from dnad_ray.distill.teacher import save_teacher
from dnad_ray.runtime.processes import ALONE, Ranks, average, check_same, digest_of, ranks_here, share_state
from dnad_ray.search.loop import SearchState

KD = {"distill.kind": "logits+features", "distill.weight": 0.5, "distill.temperature": 3.0}
UNEVEN = {"train.batch_size": 63, "train.epochs": 6}

EVIDENCE = {"shrink.pressure": "added", "shrink.criterion": "taylor", "evaluation.ladder": True}


@pytest.fixture(scope="module")
def found(tiny, small_teacher, pictures, tmp_path_factory):
    """What both processes say about all jobs, which they do one after the other: ``found[job][rank]``."""
    folder = tmp_path_factory.mktemp("two")
    files = {"data.name": "imagefolder", "data.root": str(pictures), "train.batch_size": 25, "train.epochs": 3}
    settings = {
        "plain": ("whole", UNEVEN),
        "by evidence": ("whole", {**UNEVEN, **EVIDENCE}),
        "resumed": ("resumed", UNEVEN),
        "imitating": ("whole", {**KD, "train.epochs": 3, "evaluation.recalibration_images": 0}),
        "in memory": ("whole", {**files, "data.storage": "memory"}),
        "from disk": ("whole", {**files, "data.storage": "disk", "data.workers": 1}),
        "nothing": ("nothing_saved", {}),
        "step": ("one_step", {**KD, "train.batch_size": 33, "train.grad_clip": 0.1}),
        "poisoned": ("poisoned", {}),
        "drifted": ("drifted", {}),
    }
    jobs = {}
    for name, (task, overrides) in settings.items():
        place = name.replace(" ", "-")
        (folder / place).mkdir()
        if "distill.kind" in overrides:
            save_teacher(folder / place / "teacher", small_teacher)
        jobs[name] = {"task": task, "name": place, "config": config_to_dict(tiny(overrides))}
    (folder / "jobs.json").write_text(json.dumps(jobs))
    program = Path(__file__).parents[1] / "two_processes.py"
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(program), str(folder), str(rank), "2"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=180)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], said
    results = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    return {name: [result[name] for result in results] for name in jobs}


@pytest.mark.slow
@pytest.mark.parametrize("job", ["plain", "by evidence", "imitating", "in memory", "from disk"])
def test_processes_hold_the_same_bits_after_every_step(job, found):
    first, second = ({**part, "compute": None} for part in found[job])
    assert first == second  # digests of weights, statistics, optimizers, controller, candidates; records and losses
    digests = first["digests"]
    assert len(digests) == first["records"][-1]["step"] + 1
    assert len(set(digests)) == len(digests)
    assert first["num_candidates"] < 45  # something was deleted on the way


@pytest.mark.slow
def test_processes_score_as_one_does(found):
    for job in ("plain", "imitating"):
        shared, alone = found[job][0]["scores"]
        assert shared == alone == found[job][0]["records"][-1]["proxy_accuracy"]


@pytest.mark.slow
def test_processes_all_count_as_compute(found):
    for job in ("plain", "imitating"):
        seconds, compute = found[job][0]["compute"]
        assert seconds < compute <= 2 * seconds


@pytest.mark.slow
def test_processes_report_the_whole_batch(found):
    plain = found["plain"][0]
    assert all(0.5 < loss < 4 for loss in plain["losses"])
    for accuracy in plain["accuracies"]:  # of 3 steps of 63 images; of fewer where the search ends
        correct = [accuracy * 63 * steps for steps in (1, 2, 3)]
        assert any(number == pytest.approx(round(number), abs=1e-9) for number in correct)
    assert plain["accuracies"][0] * 189 == pytest.approx(round(plain["accuracies"][0] * 189), abs=1e-9)


@pytest.mark.slow
def test_processes_that_resume_go_on_bit_for_bit(found):
    whole = found["plain"][0]
    for resumed in found["resumed"]:
        assert 6 <= resumed["step"] < whole["records"][-1]["step"]
        assert resumed["records"] == whole["records"]
        assert resumed["digests"] == whole["digests"][resumed["step"] :]


@pytest.mark.slow
def test_processes_read_from_disk_what_they_hold_in_memory(found):
    either = [[{**part, "compute": None} for part in found[job]] for job in ("from disk", "in memory")]
    assert either[0] == either[1]


@pytest.mark.slow
def test_processes_take_the_step_of_the_whole_batch(found):
    for rank, step in enumerate(found["step"]):
        assert step["sizes"] == [16 + rank, 33]  # parts that differ count by their images
        assert step["norm"] > step["clip"]  # the sum is clipped, not the parts
        assert max(step["gradients"], step["statistics"]) < 1e-10
        assert min(step["largest"], step["arch"], step["halves_differ"]) > 1e-4


@pytest.mark.slow
def test_processes_all_stop_where_one_computes_no_number(found):
    first, second = found["poisoned"]
    assert first == second
    assert first.startswith("NonFiniteLossError: the loss became nan at step 4 ")


@pytest.mark.slow
def test_processes_that_drift_apart_all_say_so(found):
    first, second = found["drifted"]
    assert first == second
    assert first.startswith("DriftError: the 2 processes of a search no longer hold the same weights")


@pytest.mark.slow
def test_processes_that_find_no_checkpoint_begin(found):
    assert found["nothing"] == [None, None]


def test_a_search_alone_sends_nothing():
    assert ranks_here() is ALONE
    tensor, state = torch.arange(3.0), {"a": torch.ones(2)}
    assert ALONE.sum(tensor) is tensor
    assert ALONE.of_first(tensor) is tensor
    assert share_state(ALONE, state, torch.device("cpu")) is state
    check_same(ALONE, lambda: pytest.fail("asked"), torch.device("cpu"))
    assert torch.equal(tensor, torch.arange(3.0))


@pytest.mark.parametrize("num", [2, 3, 7, 64, 129])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_are_all_there_is_once_and_nearly_equal(num, size):
    parts = [list(range(num))[Ranks(rank, size).part(num)] for rank in range(size)]
    assert [position for part in parts for position in part] == list(range(num))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_of_a_batch_are_the_batch(digits):
    whole = TrainingBatches(digits, 63, 5, torch.device("cpu"))
    parts = [TrainingBatches(digits, 63, 5, torch.device("cpu"), ranks=Ranks(rank, 3)) for rank in range(3)]
    assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
    for step in (0, 4):
        images, labels = zip(*(part.batch(step) for part in parts), strict=True)
        assert torch.equal(torch.cat(images), whole.batch(step)[0])
        assert torch.equal(torch.cat(labels), whole.batch(step)[1])


def test_average_weighs_and_adds_up():
    tensors, sums = [torch.ones(2, 3), torch.full((1,), 4.0)], torch.tensor([1.0, 2.0])
    average(ALONE, tensors, 0.5, sums)  # the half of a whole whose other half is nothing
    assert [tensor.unique().tolist() for tensor in tensors] == [[0.5], [2.0]]
    assert sums.tolist() == [1.0, 2.0]


def test_digest_sees_every_bit(tiny, digits):
    state = SearchState.start(tiny(), digits, run="r", trial="t")
    before = digest_of(state.shared_bits())
    assert digest_of(state.shared_bits()) == before
    statistics = [entry for entry in state.supernet.buffers() if entry.is_floating_point()]
    for entry in (state.relaxation.parameter, statistics[-1], state.arch_optimizer.param_groups[0]):
        if isinstance(entry, dict):
            entry["lr"] *= 2
        else:
            with torch.no_grad():
                entry.view(-1)[-1] = torch.nextafter(entry.view(-1)[-1], torch.tensor(9.0))
        now = digest_of(state.shared_bits())
        assert now != before
        before = now
