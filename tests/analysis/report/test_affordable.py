from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analysis.report.affordable import EPOCHS, RECIPE, training_seconds
from dnad_ray.config.retrain import retrain_recipe


@pytest.fixture
def history():
    """Two trials: epochs of 10, 6 and 2 seconds, and of 5 seconds."""
    return pd.DataFrame(
        {"run": "r", "trial": ["a", "a", "a", "b"], "epoch": [1, 2, 3, 1], "device_seconds": [10.0, 16.0, 18.0, 5.0]}
    )


def frame_of(**columns):
    defaults = {"run": "r", "trial": "a", "epoch": 1, "init_channels": 8, "config.space.init_channels": 8}
    return pd.DataFrame({**defaults, "config.data.validation_share": 0.2, **columns})


def test_training_seconds_are_those_of_the_epoch_of_the_snapshot(history):
    frame = frame_of(trial=["a", "a", "b", "a"], epoch=[1, 3, 1, 4])
    # A fifth of the images was held out; epoch 4 is not over yet, so its snapshot has the newest epoch's time.
    expected = EPOCHS * np.array([10.0, 2.0, 5.0, 2.0]) / 0.8
    assert training_seconds(frame, history) == pytest.approx(expected)


def test_training_seconds_grow_with_the_width(history):
    frame = frame_of(epoch=[2, 2, 2], init_channels=[8, 16, 4])
    assert training_seconds(frame, history) == pytest.approx(EPOCHS / 0.8 * np.array([6.0, 24.0, 6.0]))


def test_training_seconds_of_what_is_not_known_are_missing(history):
    assert np.isnan(training_seconds(frame_of(trial=["x"]), history)).all()
    assert np.isnan(training_seconds(frame_of(epoch=[1]), history.iloc[:0])).all()
    assert len(training_seconds(frame_of(epoch=[1]).iloc[:0], history)) == 0


def test_epochs_are_those_of_the_recipe_that_is_named():
    assert retrain_recipe(RECIPE).epochs == EPOCHS
