"""Where Tune gets its trials from, with Tune's side played by the test."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from ray.tune.search import Searcher

from dnad_ray.config.run import config_to_dict
from dnad_ray.errors import ConfigError
from dnad_ray.on_ray.trial_source import TrialSource
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.run_folder.writing import create_run
from dnad_ray.runtime.budget import Budget
from dnad_ray.trials.dominance import Trajectories
from dnad_ray.trials.plan import trials_in

pytestmark = pytest.mark.ray

OPTUNA = {"sweep.sampler": "optuna", "sweep.num_trials": 2, "sweep.ranges": {"shrink.rate": {"uniform": [0.1, 0.3]}}}


class Chooser:
    """A sampler that chooses what it is told to, and remembers what it is told."""

    def __init__(self, *rates):
        self.rates, self.told = list(rates), []

    def ask(self, trial_id):
        return {"shrink.rate": self.rates.pop(0)}

    def tell(self, trial_id, spec, has_failed):
        self.told.append((trial_id, spec.name, has_failed))


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


@pytest.fixture
def source(folder):
    def make(config, sampler=None, budget=None):
        made = TrialSource(
            trials_in(config, read_run(folder)),
            config,
            folder,
            budget=budget or Budget(),
            sampler=sampler,
            trajectories=Trajectories(100),
            on_chosen=chosen.append,
        )
        return made, made._trajectories, chosen

    chosen = []
    return make


def test_source_hands_out_what_is_planned_in_order(tiny, source):
    made, _, chosen = source(tiny({"sweep.grid": {"shrink.rate": [0.1, 0.2]}}))
    assert made.suggest("a") == {"trial": "t00", "overrides": {"shrink.rate": 0.1, "seed": 0}}
    assert made.suggest("b") == {"trial": "t01", "overrides": {"shrink.rate": 0.2, "seed": 0}}
    assert made.suggest("c") == Searcher.FINISHED
    assert chosen == []


def test_source_begins_no_trial_when_the_time_is_spent(tiny, source):
    made, _, _ = source(tiny(), budget=Budget(1e-9))
    assert made.suggest("a") == Searcher.FINISHED


def test_source_writes_down_what_was_chosen_before_it_begins(tiny, source, folder):
    sampler = Chooser(0.125, 0.25)
    made, trajectories, chosen = source(tiny(OPTUNA), sampler)
    assert made.suggest("a") == {"trial": "t00", "overrides": {"shrink.rate": 0.125, "seed": 0}}
    assert read_status(folder, "t00") == {"state": "pending", "overrides": {"shrink.rate": 0.125, "seed": 0}}
    assert read_status(folder, "t01") == {"state": "unknown"}
    made.suggest("b")
    assert [spec.config.shrink.rate for spec in chosen] == [0.125, 0.25]
    made.on_trial_result("a", {"step": 3, "epoch": 1})
    made.on_trial_result("a", {"step": 3, "points": [(3, 100, 0.5)]})
    made.on_trial_complete("a", {"step": 6, "points": [(6, 90, 0.25)]})
    made.on_trial_complete("b", None, error=True)
    made.on_trial_complete("b", None, error=True)  # an end that is told again changes nothing
    assert trajectories.of("t00") == ((90, 0.25), (100, 0.5))
    assert sampler.told == [("a", "t00", False), ("b", "t01", True)]
    assert made.suggest("c") == Searcher.FINISHED


def test_source_continues_what_an_earlier_command_chose(tiny, source):
    source(tiny(OPTUNA), Chooser(0.125))[0].suggest("a")
    made, _, chosen = source(tiny(OPTUNA), Chooser(0.25))
    assert made.suggest("x")["overrides"] == {"shrink.rate": 0.125, "seed": 0}
    assert [spec.name for spec in chosen] == ["t00"]  # by the earlier one
    assert made.suggest("y") == {"trial": "t01", "overrides": {"shrink.rate": 0.25, "seed": 0}}


def test_source_refuses_what_a_sampler_must_not_choose(tiny, source, folder):
    made, _, _ = source(tiny(OPTUNA), Chooser(7.0))
    with pytest.raises(ConfigError, match=r"t00: shrink\.rate: got 7"):
        made.suggest("a")
    assert read_status(folder, "t00") == {"state": "unknown"}


def test_source_leaves_nothing_of_itself_in_the_files_of_tune(tiny, source, tmp_path):
    made, _, _ = source(tiny())
    made.save_to_dir(str(tmp_path), "session")
    made.save(str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
    assert made.__getstate__() == {}  # what Tune pickles
