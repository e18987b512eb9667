"""Trials that a folder remembers: chosen late, or added, and read back like any configuration."""

from __future__ import annotations

import json

import pytest

from dnad_ray.config.run import config_to_dict
from dnad_ray.errors import ConfigError, RunFolderError
from dnad_ray.run_folder.reading import read_run, read_status
from dnad_ray.run_folder.writing import create_run, write_status
from dnad_ray.trials.plan import is_complete, more_seeds, register, trials_in, unfinished
from dnad_ray.trials.spec import TrialSpec, spec_of

OPTUNA = {
    "sweep.sampler": "optuna",
    "sweep.num_trials": 3,
    "sweep.ranges": {"shrink.rate": {"uniform": [0.1, 0.3]}, "distill.kind": {"choice": ["none", "logits"]}},
}


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


def named(specs):
    return [(spec.name, dict(spec.overrides)) for spec in specs]


def test_trials_of_a_grid_are_as_planned(tiny, folder):
    config = tiny({"sweep.grid": {"shrink.rate": [0.1, 0.2]}})
    planned = [("t00", {"shrink.rate": 0.1, "seed": 0}), ("t01", {"shrink.rate": 0.2, "seed": 0})]
    write_status(folder, "t01", "finished", overrides={"shrink.rate": 0.9, "seed": 0})  # check_out refuses that
    assert named(trials_in(config, None)) == named(trials_in(config, read_run(folder))) == planned


def test_trials_of_optuna_are_chosen_one_by_one(tiny, folder):
    config = tiny(OPTUNA)
    specs = trials_in(config, None)
    assert named(specs) == [("t00", {}), ("t01", {}), ("t02", {})]
    assert [spec.is_chosen for spec in specs] == [False] * 3
    assert all(spec.config.distill.uses_teacher for spec in specs)  # somebody has to train it
    chosen = {"shrink.rate": 0.123456789, "distill.kind": "none", "seed": 0}
    register(folder, spec_of(config, "t01", chosen))
    specs = trials_in(config, read_run(folder))
    assert named(specs) == [("t00", {}), ("t01", chosen), ("t02", {})]
    assert specs[1].config.shrink.rate == 0.123456789
    assert not specs[1].config.distill.uses_teacher


def test_trials_that_were_added_come_last(tiny, folder):
    config = tiny({"sweep.num_trials": 1})
    for number in (100, 9, 10):
        register(folder, spec_of(config, f"t{number:02d}", {"seed": number}))
    assert [spec.name for spec in trials_in(config, read_run(folder))] == ["t00", "t09", "t10", "t100"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"shrink.rat": 0.1}, "t05: got 'shrink.rat'"), ({"shrink.rate": "x"}, "t05: shrink.rate: got 'x'")],
)
def test_what_a_folder_says_is_checked_like_a_configuration(overrides, message, tiny, folder):
    write_status(folder, "t05", "pending", overrides=overrides)
    with pytest.raises(ConfigError, match=message):
        trials_in(tiny(), read_run(folder))


@pytest.mark.parametrize("overrides", [None, [], "x", {}])
def test_trial_of_which_nothing_is_known_is_none(overrides, tiny, folder):
    write_status(folder, "t05", "pending", overrides=overrides)
    assert [spec.name for spec in trials_in(tiny(), read_run(folder))] == ["t00"]


def test_register_leaves_alone_what_has_begun(tiny, folder):
    spec = TrialSpec("t07", {"seed": 7}, tiny())
    register(folder, spec)
    assert read_status(folder, "t07") == {"state": "pending", "overrides": {"seed": 7}}
    write_status(folder, "t07", "running", overrides={"seed": 7}, attempt=1)
    register(folder, spec)
    assert read_status(folder, "t07")["state"] == "running"


def test_more_seeds_of_each_setting_that_is_wanted(tiny):
    config = tiny({"sweep.grid": {"shrink.rate": [0.1, 0.2, 0.3]}, "sweep.num_trials": 5, "seed": 7})
    specs = trials_in(config, None)  # 0.1, 0.2, 0.3 under seed 7, then 0.1 and 0.2 under seed 8
    before = json.dumps(named(specs))
    added = more_seeds(config, specs, {"t02", "t03"}, 2)
    assert named(added) == [
        ("t05", {"shrink.rate": 0.3, "seed": 8}),
        ("t06", {"shrink.rate": 0.3, "seed": 9}),
        ("t07", {"shrink.rate": 0.1, "seed": 9}),
        ("t08", {"shrink.rate": 0.1, "seed": 10}),
    ]
    assert [(spec.config.shrink.rate, spec.config.seed) for spec in added[1:3]] == [(0.3, 9), (0.1, 9)]
    assert json.dumps(named(specs)) == before


def test_more_seeds_once_for_a_setting_that_is_on_the_front_twice(tiny):
    config = tiny({"sweep.num_trials": 2})
    assert named(more_seeds(config, trials_in(config, None), {"t00", "t01"}, 1)) == [("t02", {"seed": 2})]


def test_more_seeds_of_an_empty_front_are_refused(tiny):
    with pytest.raises(ConfigError, match="--more-seeds: got 3; allowed: a run with snapshots on its front"):
        more_seeds(tiny(), trials_in(tiny(), None), set(), 3)


def test_more_seeds_than_can_be_planned_are_refused_at_once(tiny):
    config = tiny({"sweep.num_trials": 2})
    with pytest.raises(ConfigError, match=r"--more-seeds: got 1000000000; allowed: so few that .* at most 10,000"):
        more_seeds(config, trials_in(config, None), {"t00"}, 10**9)


@pytest.mark.parametrize("state", [["finished"], {"finished": 1}, 7, None, "archived"])
def test_unfinished_survives_what_a_status_file_may_say(state, tiny, folder):
    specs = [TrialSpec(name, {"seed": 0}, tiny()) for name in ("t00", "t01")]
    for spec in specs:
        write_status(folder, spec.name, "finished")
    assert is_complete(specs, read_run(folder))
    (folder / "trials" / "t00" / "status.json").write_text(json.dumps({"state": state, "attempt": 3}))
    assert unfinished(specs, read_run(folder)) == specs[:1]
    assert read_status(folder, "t00") == {"state": "unknown", "attempt": 3}


@pytest.mark.parametrize("part", ["snapshots/00000008.json", "checkpoints/00000008"])
@pytest.mark.parametrize("content", [None, "", '{"state": "runn', '{"state": "paused"}', '{"overrides": "seed"}'])
def test_trial_with_records_and_no_setting_is_not_continued(part, content, tiny, tmp_path):
    ranges = {"shrink.rate": {"uniform": [0.01, 0.1]}}
    config = tiny({"sweep.sampler": "optuna", "sweep.ranges": ranges, "sweep.num_trials": 2})
    folder = create_run(tmp_path / "demo", config_to_dict(config), "0.1")
    chosen = {"shrink.rate": 0.05, "seed": 0}
    for name in ("t00", "t01", "t02"):  # one more than planned: of another seed
        write_status(folder, name, "paused", overrides=chosen)
        (folder / "trials" / name / part).mkdir(parents=True)
    assert [spec.overrides for spec in trials_in(config, read_run(folder))] == [chosen] * 3
    for name in ("t01", "t02"):
        status = folder / "trials" / name / "status.json"
        before = status.read_bytes()
        status.unlink() if content is None else status.write_text(content)
        with pytest.raises(
            RunFolderError, match=f"--resume with --out: got '.*demo, whose trial {name} has records, but"
        ):
            trials_in(config, read_run(folder))
        status.write_bytes(before)
    status.unlink()
    (folder / "trials" / "t02" / part).rmdir()  # it left nothing: the name is free
    assert len(trials_in(config, read_run(folder))) == 2
