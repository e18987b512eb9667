"""Every number of a configuration has bounds, and what lies within them never ends in an error of a library."""

from __future__ import annotations

import math

import pytest

from dnad_ray.config.retrain import RetrainConfig, with_settings
from dnad_ray.config.run import RunConfig, config_to_dict, with_overrides
from dnad_ray.config.section import LARGEST, MOST_TRIALS
from dnad_ray.errors import ConfigError
from dnad_ray.run_folder.reading import read_status
from dnad_ray.run_folder.writing import create_run
from dnad_ray.search.prepare import prepare_teacher, run_search
from dnad_ray.text import dotted
from dnad_ray.trials.spec import TrialSpec

ABSURD = (1e300, -1e300, 10**400, -(10**400), 10**5000, math.nan, math.inf, -1, True, "many", [1e300], {"a": 1e300})


def unbounded(schema, path=""):
    """Yield the numbers of a JSON schema that have no upper bound."""
    if isinstance(schema, dict):
        if schema.get("type") in ("number", "integer") and not {"maximum", "exclusiveMaximum"} & schema.keys():
            yield path
        for name, part in schema.items():
            yield from unbounded(part, f"{path}/{name}")
    elif isinstance(schema, list):
        for part in schema:
            yield from unbounded(part, path)


@pytest.mark.parametrize("config", [RunConfig, RetrainConfig])
def test_every_number_has_an_upper_bound(config):
    assert list(unbounded(config.model_json_schema())) == []


def error_of(key, value):
    """Return the message that refuses a value; None if the value is good."""
    try:
        if key in RetrainConfig.model_fields:
            with_settings(RetrainConfig(), {key: value})
        else:
            with_overrides(RunConfig(), {key: value})
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize("key", [*dotted(config_to_dict(RunConfig())), *RetrainConfig.model_fields])
def test_absurd_values_are_refused_in_words(key):
    errors = [error_of(key, value) for value in ABSURD]
    assert all(error is None or len(error) < 1000 for error in errors)
    assert all(error is not None for error, value in zip(errors, ABSURD, strict=True) if value in (1e300, math.inf))


def test_absurd_integers_are_named_by_their_digits():
    with pytest.raises(ConfigError, match=r"seed: got an integer of 401 digits; allowed: less than 2147483648"):
        with_overrides(RunConfig(), {"seed": 10**400})


def test_number_of_trials_is_bounded(tiny):
    with pytest.raises(ConfigError, match=r"sweep\.num_trials: got 1000000000; allowed: less than or equal to 10000"):
        tiny({"sweep.num_trials": 10**9})
    grid = {key: [0.001 * (1 + step) for step in range(60)] for key in ("shrink.rate", "shrink.mu", "shrink.baseline")}
    with pytest.raises(ConfigError, match=r"grid: got 3 keys with 216,000 combinations; allowed: at most 10,000"):
        tiny({"sweep.grid": grid})
    assert MOST_TRIALS == 10_000


@pytest.mark.parametrize(
    "overrides",
    [
        {"train.weight_decay": LARGEST},
        {"train.arch_learning_rate": LARGEST},
        {"distill.kind": "logits", "distill.teacher.learning_rate": 1e-3, "distill.temperature": LARGEST},
        {
            "distill.kind": "decoupled",
            "distill.temperature": 1.0,
            "distill.temperature_schedule": "linear",
            "distill.temperature_end": LARGEST,
        },
        {"distill.kind": "features", "distill.weight": LARGEST},
        {"shrink.mu": LARGEST, "shrink.mu_growth": LARGEST},
        {"shrink.gamma_init": LARGEST, "shrink.gamma_max": LARGEST, "shrink.gamma_growth": LARGEST},
        {"train.grad_clip": LARGEST, "train.learning_rate": LARGEST},
        {"shrink.rate_factor": LARGEST, "shrink.stall_epochs": 1e-30},
    ],
)
def test_search_at_the_largest_values_ends_in_words(overrides, tiny, digits, quiet_board, tmp_path):
    config = tiny({"train.epochs": 2, "distill.teacher.epochs": 1, **overrides})
    folder = create_run(tmp_path / "demo", config_to_dict(config), "0.1")
    spec = TrialSpec("t00", {"seed": 0}, config)
    run_search(spec, prepare_teacher(config, digits, [spec], folder, quiet_board), folder, quiet_board)
    assert str(read_status(folder, "t00")["state"]) in ("finished", "stopped")
