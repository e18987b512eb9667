"""The estimate that is printed before a run: what it counts, worked out by hand, and that it changes nothing."""

from __future__ import annotations

import pytest
import torch

from dnad_ray.config.run import config_to_dict
from dnad_ray.run_folder.writing import create_run
from dnad_ray.search import estimate
from dnad_ray.search.estimate import estimate_in_words, planned_epochs
from dnad_ray.search.prepare import prepare_teacher
from dnad_ray.trials.spec import TrialSpec

SLOW = {"distill.kind": "logits", "distill.teacher.epochs": 40, "evaluation.recalibration_images": 0}


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


@pytest.fixture
def words(digits, folder):
    """Returns the estimate of trials of a configuration."""

    def estimated(config, num_trials=1, num_parallel=1):
        spec = TrialSpec("t00", {"seed": 0}, config)
        return estimate_in_words(config, spec, digits, folder, num_trials=num_trials, num_parallel=num_parallel)

    return estimated


def test_estimate_counts_rounds(tiny, words, monkeypatch):
    # 6 epochs of 3 steps and, for 128 + 64 images after each, 192 / 64 / 3 = 1 step more: 24 steps.
    monkeypatch.setattr(estimate, "seconds_per_step", lambda state: 10 / 24)
    # One epoch of warm-up, then 45 candidates fall by 0.3 of them an epoch down to 8: (1 - 8 / 45) / 0.3 = 2.74.
    said = words(tiny(), 5, 2)
    assert said == (
        "about 19 s, at most 30 s: 5 trials of up to 6 epochs, 2 at a time, each 10 s if nothing were deleted"
    )
    assert "1 trial of" in words(tiny())


def test_estimate_of_what_diverges_is_an_estimate_too(tiny, words):
    # One setting of a grid must not end the sweep before it begins.
    assert "about" in words(tiny({"train.learning_rate": 1e30}))


def test_estimate_covers_the_teacher_until_it_is_there(tiny, digits, folder, words, quiet_board, monkeypatch):
    config = tiny(SLOW)
    # 40 epochs of 3 steps, and 128 images to measure it: 128 / 64 / 3 of a step.
    monkeypatch.setattr(estimate, "seconds_of_step", lambda step, device, num_steps: 0.5)
    assert ": 60 s for the teacher, then 1 trial of up to 6 epochs" in words(config)
    checkpoint = folder / "teacher" / "checkpoints" / "00000060"
    checkpoint.mkdir(parents=True)  # of a teacher that was paused after 20 epochs
    assert ": 30 s for the teacher, then 1 trial" in words(config)
    checkpoint.rmdir()
    prepare_teacher(
        tiny(SLOW | {"distill.teacher.epochs": 1}), digits, [TrialSpec("t00", {}, config)], folder, quiet_board
    )
    assert "for the teacher" not in words(config)
    assert "for the teacher" not in words(tiny())


def test_estimate_changes_no_random_state_and_writes_nothing(tiny, folder, words):
    before = (torch.get_rng_state(), sorted(folder.rglob("*")))
    words(tiny(SLOW))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert sorted(folder.rglob("*")) == before[1]


@pytest.mark.parametrize(
    ("epochs", "warmup", "rate", "smallest", "expected"),
    [
        (10, 0, 0.1, 0.5, (5.0, 0.75)),
        (10, 5, 0.1, 0.5, (10.0, 0.875)),
        (4, 0, 0.1, 0.5, (4.0, 0.8)),  # its last epoch comes before its floor
        (10, 0, 1.0, 1.0, (0.0, 1.0)),  # it begins at its floor
    ],
)
def test_planned_epochs_fall_by_the_shrink_rate_to_the_floor(epochs, warmup, rate, smallest, expected, tiny):
    config = tiny({"train.epochs": epochs, "train.warmup_epochs": warmup, "shrink.rate": rate})
    assert planned_epochs(config, smallest) == pytest.approx(expected)
