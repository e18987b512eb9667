from __future__ import annotations

from types import SimpleNamespace

import pytest

from dnad_ray.commands.job_running import _standing
from dnad_ray.config.retrain import quick
from dnad_ray.retrain import estimate
from dnad_ray.run_folder.layout import job_folder
from dnad_ray.run_folder.states import TrialState
from dnad_ray.run_folder.writing import write_job_status
from dnad_ray.storage.files import write_json


def job(name, macs, epochs=30):
    spec = SimpleNamespace(model="genotype", digest=f"digest of {name}", macs=macs, genotype=(), init_channels=8)
    return SimpleNamespace(name=name, spec=spec, config=quick().model_copy(update={"epochs": epochs}), seed=0)


@pytest.fixture
def measured(monkeypatch):
    """Every epoch takes 10 seconds per million multiply-adds; the names of the networks that were measured."""
    names = []

    def seconds(job, *_):
        names.append(job.name)
        return job.spec.macs / 1e5

    monkeypatch.setattr(estimate, "cost_of", lambda spec, _: spec)
    monkeypatch.setattr(estimate, "seconds_per_epoch", seconds)
    return names


def words_of(jobs, run):
    return estimate.estimate_in_words(jobs, SimpleNamespace(data=SimpleNamespace(shape=None)), run, None)


def test_estimate_measures_the_costliest_network_once(measured, tmp_path):
    jobs = [job("small", 1_000_000), job("large", 2_000_000), job("middle", 1_500_000)]
    # 30 epochs of 20 s, and three of them.
    assert (
        words_of(jobs, tmp_path) == "up to 10 min for a network on this machine, 30 min for all 3 one after the other"
    )
    assert measured == ["large"]


def test_estimate_counts_the_epochs_that_are_left(measured, tmp_path):
    write_json(tmp_path / "retrained" / "half" / "history.json", [{"epoch": n} for n in range(1, 16)])
    # 15 epochs of 20 s are left.
    assert words_of([job("half", 2_000_000)], tmp_path) == "up to 5 min for a network on this machine"


def test_estimate_of_days_says_what_makes_it_shorter(measured, tmp_path):
    words = words_of([job("deep", 500_000_000, epochs=600)], tmp_path)
    # 600 epochs of 5,000 s.
    assert (
        words
        == "up to 34.7 days for a network on this machine; --recipe quick, --epochs and --max-macs make it shorter"
    )


def test_progress_calls_training_accuracy_by_its_name(tmp_path):
    job_folder(tmp_path, "one").mkdir(parents=True)
    write_job_status(tmp_path, "one", TrialState.RUNNING)
    history = [{"epoch": 3, "train_loss": 0.5, "train_accuracy": 0.75}]
    write_json(job_folder(tmp_path, "one") / "history.json", history)
    assert _standing([job("one", 1)], tmp_path, {"one": (1, 4)}) == [
        "genotype digest of one C 8 seed 0: 25%, epoch 3 of 30, training loss 0.5000, training accuracy 75.00%"
    ]


@pytest.mark.parametrize(
    ("seconds", "num_steps", "measured"),
    [
        (0.01, 90, [2, 20]),  # the first steps say little of a small network
        (0.1, 90, [2, 10]),
        (0.4, 90, [2]),
        (0.01, 9, [2, 8]),  # a training has no more steps
    ],
)
def test_epoch_of_a_small_network_is_measured_over_more_steps(seconds, num_steps, measured, monkeypatch):
    asked = []
    state = SimpleNamespace(
        device=None, step=0, num_steps=num_steps, steps_per_epoch=5, batches=SimpleNamespace(close=lambda: None)
    )
    monkeypatch.setattr(estimate, "RetrainState", lambda *_, **__: state)
    monkeypatch.setattr(estimate, "seconds_of_step", lambda step, device, number: asked.append(number) or seconds)
    images = SimpleNamespace(data=None)
    assert estimate.seconds_per_epoch(job("small", 1), images) == pytest.approx(5 * seconds)
    assert asked == measured
