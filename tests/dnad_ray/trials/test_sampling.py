"""Which settings a sweep tries: the grid in order, and draws that a seed repeats."""

from __future__ import annotations

import copy

import pytest

from dnad_ray.config.run import DistillConfig, RunConfig, config_to_dict, with_overrides
from dnad_ray.errors import ConfigError
from dnad_ray.trials import sampling
from dnad_ray.trials.sampling import check_sampler, corners, trial_configs

LOGITS = RunConfig(distill=DistillConfig(kind="logits"))
RANGES = {
    "shrink.rate": {"loguniform": [0.02, 0.2]},
    "distill.kind": {"choice": ["logits", "features"]},
    "space.num_nodes": {"integer": [2, 4]},
}


def _grid(config=LOGITS, num_trials=None, **changes):
    """Return a configuration with a grid; a dot is written as two underscores."""
    grid = {key.replace("__", "."): values for key, values in changes.items()}
    return with_overrides(config, {"sweep.grid": grid, "sweep.num_trials": num_trials})


def _drawn(sampler="random", ranges=RANGES, num_trials=6, **overrides):
    sweep = {"sweep.sampler": sampler, "sweep.ranges": ranges, "sweep.num_trials": num_trials}
    return with_overrides(LOGITS, {**sweep, **overrides})


def test_trials_take_the_grid_in_order():
    config = _grid(shrink__rate=[0.1, 0.2], distill__temperature=[2, 6, 8])
    trials = list(trial_configs(config))
    expected = [(rate, temperature) for rate in (0.1, 0.2) for temperature in (2, 6, 8)]
    assert [(o["shrink.rate"], o["distill.temperature"]) for o, _ in trials] == expected
    assert [(c.shrink.rate, c.distill.temperature) for _, c in trials] == expected
    assert all(list(o) == ["shrink.rate", "distill.temperature", "seed"] for o, _ in trials)
    assert {c.seed for _, c in trials} == {0}


def test_trials_beyond_the_grid_take_the_next_seeds():
    config = with_overrides(_grid(shrink__rate=[0.1, 0.2], num_trials=5), {"seed": 7})
    trials = list(trial_configs(config))
    assert [(c.seed, c.shrink.rate) for _, c in trials] == [(7, 0.1), (7, 0.2), (8, 0.1), (8, 0.2), (9, 0.1)]
    assert [o["seed"] for o, _ in trials] == [7, 7, 8, 8, 9]


def test_trials_fewer_than_the_grid():
    trials = list(trial_configs(_grid(shrink__rate=[0.1, 0.2, 0.3], num_trials=2)))
    assert [c.shrink.rate for _, c in trials] == [0.1, 0.2]


def test_trials_without_a_grid():
    assert [o for o, _ in trial_configs(RunConfig())] == [{"seed": 0}]
    assert [o for o, _ in trial_configs(_grid(num_trials=3))] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


def test_trials_change_nothing_but_what_is_varied():
    config = _grid(shrink__rate=[0.1, 0.2])
    before = copy.deepcopy(config_to_dict(config))
    for overrides, trial in trial_configs(config):
        assert trial == with_overrides(config, overrides)
    assert config_to_dict(config) == before


def test_trials_over_kinds_resolve_the_temperature_for_each():
    config = with_overrides(LOGITS, {"train.epochs": 5})
    kinds = ["logits", "features", "none", "logits+features"]
    trials = [trial.distill for _, trial in trial_configs(_grid(config, distill__kind=kinds))]
    assert [(d.kind, d.temperature) for d in trials] == list(zip(kinds, (4.0, None, None, 4.0), strict=True))


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"shrink.rat": [0.1]}, "sweep.grid: got 'shrink.rat'; allowed: shrink.rate"),
        ({"shrink.rate": [0.1, 2]}, r"sweep.grid: shrink.rate: got 2"),
        ({"shrink.rate": [0.1, 0.2, 0.1]}, r"shrink.rate: got \[0.1, 0.2, 0.1\]; allowed: different values; sweep"),
        ({"shrink.rate": []}, r"sweep.grid.shrink.rate: got \[\]; allowed: at least one value"),
        ({"distill.kind": ["features"], "distill.temperature": [2]}, "has no effect"),
        ({"seed": [1, 2]}, "any key but seed"),
        ({"sweep.num_trials": [1]}, "any key but seed"),
        ({"data.image_size": [8, 16]}, r"what all trials share \(data"),
        ({"distill.teacher.init_channels": [8, 16]}, "what all trials share"),
        ({"data.workers": [1, 2]}, "any key but seed"),
    ],
)
def test_trials_of_an_impossible_grid(grid, message):
    config = with_overrides(LOGITS, {"sweep.grid": grid})
    with pytest.raises(ConfigError, match=message):
        list(trial_configs(config))


def test_trials_of_a_temperature_that_nothing_reads():
    with pytest.raises(ConfigError, match="has no effect"):
        list(trial_configs(_grid(RunConfig(), distill__temperature=[2, 6])))


def test_trials_at_random_are_repeated_by_the_seed_and_by_nothing_else():
    first, again = (list(trial_configs(_drawn())) for _ in range(2))
    assert first == again
    assert [overrides for overrides, _ in trial_configs(_drawn(num_trials=9))][:6] == [o for o, _ in first]
    assert [o for o, _ in trial_configs(_drawn(seed=1))] != [o for o, _ in first]
    for overrides, config in first:
        assert list(overrides) == [*RANGES, "seed"]
        assert overrides["seed"] == config.seed == 0
        assert 0.02 <= overrides["shrink.rate"] == config.shrink.rate <= 0.2
        assert overrides["distill.kind"] == config.distill.kind
        assert overrides["space.num_nodes"] == config.space.num_nodes
    assert len({o["shrink.rate"] for o, _ in first}) == 6


def test_trials_of_optuna_are_not_known_beforehand():
    assert list(trial_configs(_drawn("optuna"))) == []


def test_corners_are_the_ends_of_all_ranges():
    found = [(c.shrink.rate, c.distill.kind, c.space.num_nodes) for c in corners(_drawn())]
    expected = [(rate, kind, nodes) for rate in (0.02, 0.2) for kind in ("logits", "features") for nodes in (2, 4)]
    assert found == expected
    assert list(corners(RunConfig())) == []


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"shrink.rat": {"uniform": [0.1, 0.2]}}, "sweep.ranges: got 'shrink.rat'; allowed: shrink.rate"),
        ({"shrink.rate": {"uniform": [0.1, 2]}}, "sweep.ranges: shrink.rate: got 2"),
        ({"train.epochs": {"uniform": [5, 9]}, "train.warmup_epochs": {"integer": [0, 6]}}, "warmup_epochs: got 6"),
        ({"train.batch_size": {"uniform": [8.5, 64]}}, "train.batch_size: got 8.5"),
        ({"seed": {"integer": [0, 5]}}, "any key but seed"),
        ({"data.image_size": {"choice": [8, 16]}}, "what all trials share"),
        (
            {"distill.kind": {"choice": ["logits", "none"]}, "distill.temperature": {"uniform": [1, 8]}},
            "has no effect with kind 'none'",
        ),
    ],
)
@pytest.mark.parametrize("sampler", ["random", "optuna"])
def test_impossible_ranges_are_refused_before_anything_begins(sampler, ranges, message):
    with pytest.raises(ConfigError, match=message):
        check_sampler(_drawn(sampler, ranges))


def test_optuna_that_is_not_installed_is_refused_with_what_to_install(monkeypatch):
    check_sampler(_drawn("optuna"))
    monkeypatch.setattr(sampling, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"got 'optuna'; allowed: grid or random, .* pip install .*\[optuna\]"):
        check_sampler(_drawn("optuna"))
    check_sampler(_drawn("random"))


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"sampler": "random", "num_trials": 2}, "sweep.ranges: got {}"),
        ({"sampler": "optuna", "ranges": RANGES}, "sweep.num_trials: got None"),
        ({"ranges": RANGES}, "which have no effect with sampler 'grid'"),
        ({"sampler": "random", "ranges": RANGES, "grid": {"shrink.rate": [1]}}, "no effect with sampler 'random'"),
    ],
)
def test_sampler_without_what_it_needs_is_refused(sweep, message):
    with pytest.raises(ConfigError, match=message):
        with_overrides(RunConfig(), {f"sweep.{name}": value for name, value in sweep.items()})


def test_overrides_of_one_range():
    config = with_overrides(_drawn(), {"sweep.ranges.shrink.rate": {"uniform": [0.1, 0.3]}})
    assert config.sweep.ranges["shrink.rate"].uniform == (0.1, 0.3)
    assert config.sweep.ranges["space.num_nodes"].integer == (2, 4)
