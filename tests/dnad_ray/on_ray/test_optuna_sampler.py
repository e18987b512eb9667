"""Settings from Optuna: what it is told, what it answers, and a real sweep that is continued."""

from __future__ import annotations

import json

import pytest
import yaml

pytest.importorskip("ray")
pytest.importorskip("optuna")

from dnad_ray.config.run import config_from_dict, config_to_dict, with_overrides
from dnad_ray.data.loading import load_data
from dnad_ray.errors import ConfigError
from dnad_ray.on_ray.optuna_sampler import OptunaSampler
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.writing import write_status
from dnad_ray.search.loop import SearchState, search
from dnad_ray.trials.dominance import Trajectories
from dnad_ray.trials.spec import TrialSpec

pytestmark = pytest.mark.ray

RANGES = {
    "shrink.rate": {"loguniform": [0.2, 0.4]},
    "train.betas": {"choice": [[0.5, 0.9], [0.9, 0.999]]},
    "evaluation.interval_epochs": {"integer": [1, 2]},
}
# One trial at a time, because each of two workers would load torch.
SWEEP = {"sweep.sampler": "optuna", "sweep.num_trials": 3, "sweep.max_concurrent": 1, "sweep.ranges": RANGES}
SECONDS = 420  # after which a sweep of seconds hangs


def spec(name, rate, **others):
    values = {"shrink.rate": rate, "train.betas": [0.5, 0.9], "evaluation.interval_epochs": 1, "seed": 0}
    return TrialSpec(name, {**values, **others}, None)


def trajectories_of(**errors):
    """Trials with one tiny network each, so that it counts at all levels."""
    known = Trajectories(100)
    for name, error in errors.items():
        known.add(name, name, 1, 1, error)
    return known


def test_sampler_answers_with_config_values_within_the_ranges(tiny, digits):
    sampler = OptunaSampler(tiny(SWEEP), [], Trajectories(100), digits)
    for number in range(12):
        values = sampler.ask(f"id{number}")
        config = tiny(values)
        assert set(values) == set(RANGES)
        assert 0.2 <= config.shrink.rate <= 0.4
        assert list(config.train.betas) in RANGES["train.betas"]["choice"]
        assert config.evaluation.interval_epochs in (1, 2)


def test_sampler_is_repeated_by_the_seed_but_not_after_a_resume(tiny, digits):
    def first(config, *ended):
        known = trajectories_of(**{one.name: 0.5 for one in ended})
        return OptunaSampler(config, ended, known, digits).ask("a")

    assert first(tiny(SWEEP)) == first(tiny(SWEEP))
    assert first(tiny({**SWEEP, "seed": 1})) != first(tiny(SWEEP))
    # A sampler of the same seed would begin with what was tried already.
    assert first(tiny(SWEEP), spec("t00", 0.3))["shrink.rate"] != first(tiny(SWEEP))["shrink.rate"]


@pytest.mark.parametrize("is_resumed", [True, False])
def test_sampler_learns_which_settings_are_better_at_all_levels(is_resumed, tiny, digits):
    config = tiny({**SWEEP, "sweep.ranges": {"shrink.rate": {"uniform": [0.1, 0.9]}}})
    rates = [0.1 + 0.8 * number / 39 for number in range(40)]
    specs = [TrialSpec(f"t{number:02d}", {"shrink.rate": rate, "seed": 0}, None) for number, rate in enumerate(rates)]
    known = trajectories_of(**{one.name: abs(rate - 0.3) for one, rate in zip(specs, rates, strict=True)})
    if is_resumed:
        sampler = OptunaSampler(config, specs, known, digits)
    else:  # trials of this command that an earlier one had chosen
        sampler = OptunaSampler(config, [], known, digits)
        for number, one in enumerate(specs):
            sampler.tell(f"old{number}", one, False)
    asked = [sampler.ask(f"id{number}")["shrink.rate"] for number in range(10)]
    # Of values drawn evenly a quarter lies that close; six of ten do so once in fifty times, and the draws are seeded.
    assert sum(abs(rate - 0.3) < 0.1 for rate in asked) >= 6


def test_sampler_is_told_the_lowest_error_within_each_level(tiny, digits):
    config = tiny({**SWEEP, "sweep.cost_levels": [0.25, 0.5, 1]})
    known = Trajectories(100)
    sampler = OptunaSampler(config, [], known, digits)
    dense = sampler._levels[-1]
    assert sampler._levels == [dense / 4, dense / 2, dense]
    for step, (share, error) in enumerate([(1.0, 0.1), (0.5, 0.3), (0.3, 0.2)]):
        known.add("t00", "", step, int(share * dense), error)
    values = sampler.ask("a")
    sampler.ask("b")
    sampler.tell("a", spec("t00", values["shrink.rate"]), False)
    sampler.tell("b", spec("t01", 0.3), True)
    told, failed = sampler._study.trials
    assert told.values == [1.0, 0.2, 0.1]
    assert failed.state.name == "FAIL"


def test_sampler_refuses_records_outside_the_ranges(tiny, digits):
    with pytest.raises(ConfigError, match=r"what t00 changes: got .*; allowed: values within sweep\.ranges"):
        OptunaSampler(tiny(SWEEP), [spec("t00", 0.9)], trajectories_of(t00=0.5), digits)


@pytest.fixture
def sweep(tiny, start, tmp_path):
    """Run a sweep of a configuration in a process of its own; returns exit code, output and errors."""
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(config_to_dict(tiny({**SWEEP, "train.batch_size": 384}))))

    def run(*arguments):
        done = start("sweep", file, "--out", tmp_path / "demo", *arguments)
        said, err = done.communicate(timeout=SECONDS)
        return done.returncode, said, err

    return run


@pytest.mark.slow
def test_sweep_of_optuna_is_continued_with_the_same_settings(sweep, tmp_path, timeless):
    out = tmp_path / "demo"
    code, said, err = sweep("--max-trials", "2")
    assert (code, err) == (0, ""), said
    left = "--max-trials 2 is reached; 1 of 3 trials are not at their end (t02); to continue: dnad-ray sweep "
    assert said.splitlines()[-1].startswith(left)
    first = read_run(out)
    assert {name: status["state"] for name, status in first.status.items()} == {"t00": "finished", "t01": "finished"}
    before = {name: status["overrides"] for name, status in first.status.items()}
    # As a driver that was killed leaves it: t01 is running, and its end was not recorded.
    write_status(out, "t01", "running", overrides=before["t01"], attempt=1)
    last = max((out / "trials" / "t01" / "snapshots").glob("*.json"))
    last.unlink()
    (out / "snapshots.parquet").unlink()
    for newest in sorted(out.glob("trials/t01/checkpoints/*"))[-1:]:  # a trial of seconds has none
        (newest / "manifest.json").unlink()

    code, said, err = sweep("--resume", "--more-seeds", "1")
    assert (code, err) == (0, ""), said
    contents = read_run(out)
    assert {status["state"] for status in contents.status.values()} == {"finished"}
    assert {name: contents.status[name]["overrides"] for name in before} == before
    attempts = {name: status["attempt"] for name, status in contents.status.items()}
    assert (attempts["t00"], attempts["t01"], attempts["t02"]) == (1, 2, 1)
    settings = [json.dumps(contents.status[name]["overrides"]) for name in ("t00", "t01", "t02")]
    assert len(set(settings)) == 3
    # More seeds of what was on the front then, and nothing else.
    added = [contents.status[name]["overrides"] for name in sorted(set(contents.status) - {"t00", "t01", "t02"})]
    assert added
    for overrides in added:
        assert overrides["seed"] == 1
        assert {**overrides, "seed": 0} in before.values()
        assert "one more seed of a setting on the front" in said
    # What was recorded is what unbroken searches of these settings record.
    config = config_from_dict(contents.config)
    expected, data = [], load_data(config.data)
    for name, status in contents.status.items():
        trial = with_overrides(config, status["overrides"])
        expected += timeless(search(SearchState.start(trial, data, run="demo", trial=name)))
    assert timeless(contents.snapshots) == expected
