"""The run folder of a command: which one may be used, and how a run is concluded."""

from __future__ import annotations

import io

import pytest
import yaml
from rich.console import Console

from dnad_ray.commands.folder import check_out, conclude, run_folder, stored_run
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.errors import (
    ConfigError,
    DataError,
    IncompleteRunError,
    NonFiniteLossError,
    RunFolderError,
)
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.writing import create_run, write_status
from dnad_ray.runtime.budget import Budget
from dnad_ray.trials.plan import is_complete
from dnad_ray.trials.spec import TrialSpec
from dnad_ray.watch.board import Board
from dnad_ray.watch.plain_lines import PlainLines


@pytest.fixture
def board():
    console = Console(file=io.StringIO(), width=80)
    board = Board([PlainLines(console)])
    board.console = console
    return board


def said(board):
    return board.console.file.getvalue()


def spec_of(config, name="t00"):
    return TrialSpec(name, {"seed": config.seed}, config)


@pytest.fixture
def folder(tiny, tmp_path):
    return create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")


def test_check_out_of_a_new_run_makes_nothing(tiny, tmp_path):
    out = tmp_path / "runs" / "new"
    assert check_out(tiny(), [spec_of(tiny())], out, None) == out
    assert list(tmp_path.iterdir()) == []


def test_check_out_of_a_run_to_resume(tiny, folder):
    assert check_out(tiny(), [spec_of(tiny())], folder, stored_run(folder)) == folder
    with pytest.raises(RunFolderError, match="--resume"):
        check_out(tiny(), [spec_of(tiny())], folder, None)


def test_check_out_of_another_configuration_names_the_differences(tiny, folder):
    other = tiny({"train.epochs": 9, "shrink.rate": 0.1})
    with pytest.raises(ConfigError, match=r"--resume: got 'train.epochs 9, shrink.rate 0.1'; allowed: .*config.yaml"):
        check_out(other, [spec_of(other)], folder, stored_run(folder))


def test_check_out_takes_lists_and_tuples_for_the_same(tiny, tmp_path):
    config = tiny({"sweep.grid": {"train.betas": [[0.5, 0.9], [0.9, 0.99]]}})
    lists = config.sweep.grid["train.betas"]
    as_recipes_say = config.model_copy(
        update={"sweep": config.sweep.model_copy(update={"grid": {"train.betas": tuple(map(tuple, lists))}})}
    )
    folder = create_run(tmp_path / "demo", config_to_dict(as_recipes_say), "0.1")
    assert check_out(as_recipes_say, [], folder, stored_run(folder)) == folder


def test_check_out_of_a_run_that_the_other_command_made(tiny, folder):
    write_status(folder, "t00", "running", overrides={"distill.temperature": 2.0, "seed": 0})
    with pytest.raises(RunFolderError, match=r"search or sweep \(t00 differs\)"):
        check_out(tiny(), [spec_of(tiny())], folder, stored_run(folder))
    same = TrialSpec("t00", {"distill.temperature": 2.0, "seed": 0}, tiny())
    assert check_out(tiny(), [same], folder, stored_run(folder)) == folder


def test_check_out_of_no_run(tiny, folder, tmp_path):
    with pytest.raises(RunFolderError, match="leave --resume out"):
        check_out(tiny(), [], tmp_path, stored_run(tmp_path))
    (folder / "config.yaml").write_text("a: [")
    with pytest.raises(RunFolderError, match=r"config\.yaml can be read"):
        check_out(tiny(), [], folder, stored_run(folder))


def fail_in(folder, config, *, resume=False, error, trial=None):
    with run_folder(config, folder, resume):
        if trial is not None:
            write_status(folder, trial, "running")
        raise error


@pytest.mark.parametrize("error", [DataError("data", "x", "y"), NonFiniteLossError("nan"), OSError("disk")])
def test_run_folder_is_taken_away_where_no_trial_began(error, tiny, tmp_path):
    with pytest.raises(type(error)):
        fail_in(tmp_path / "demo", tiny(), error=error)
    assert list(tmp_path.iterdir()) == []


def test_run_folder_stays_where_there_is_something_in_it(tiny, tmp_path):
    with pytest.raises(DataError):
        fail_in(tmp_path / "demo", tiny(), error=DataError("data", "x", "y"), trial="t00")
    assert read_run(tmp_path / "demo").config == config_to_dict(tiny())


def test_run_folder_of_a_resumed_run_is_never_taken_away(tiny, folder):
    with pytest.raises(DataError):
        fail_in(folder, tiny(), error=DataError("data", "x", "y"), resume=True)
    assert (folder / "run.json").exists()


@pytest.fixture
def two(tiny, folder):
    specs = [spec_of(tiny(), "t00"), spec_of(tiny(), "t01")]
    for spec in specs:
        write_status(folder, spec.name, "finished")
    return specs


def test_conclude_a_complete_run(two, folder, board):
    conclude(two, read_run(folder), board)
    assert said(board) == f"0 snapshots in {folder / 'snapshots.parquet'}\n"
    assert is_complete(two, read_run(folder))


@pytest.mark.parametrize("state", ["running", "failed", "unknown"])
def test_conclude_computes_that_a_run_is_incomplete(state, two, folder, board):
    write_status(folder, "t01", state, reason="the disk is gone")
    with pytest.raises(IncompleteRunError, match=r"1 of 2 trials did not finish \(t01\); the disk is gone"):
        conclude(two, read_run(folder), board)
    assert (folder / "snapshots.parquet").exists()
    assert not is_complete(two, read_run(folder))


def test_conclude_says_which_trials_stopped_early(two, folder, board):
    write_status(folder, "t00", "stopped", reason="the loss became nan at step 3")
    with pytest.raises(NonFiniteLossError, match=r"1 of 2 trials stopped early.*t00: the loss became nan at step 3"):
        conclude(two, read_run(folder), board)
    assert "t00 stopped early: the loss became nan at step 3; its snapshots stand" in said(board)
    assert is_complete(two, read_run(folder))  # it would diverge again
    write_status(folder, "t01", "running")
    with pytest.raises(IncompleteRunError, match=r"\(t01\)"):
        conclude(two, read_run(folder), board)


def test_conclude_takes_a_spent_budget_for_no_failure(two, folder, board):
    write_status(folder, "t01", "paused", reason="the time budget was spent")
    spent = Budget(1e-9)
    words = "the time budget of 0 s is spent; 1 of 2 trials are not at their end (t01)"
    assert conclude(two, read_run(folder), board, spent) == words
    with pytest.raises(IncompleteRunError, match=r"1 of 2 trials did not finish \(t01\)"):
        conclude(two, read_run(folder), board, Budget(3600))  # it ended for another reason
    write_status(folder, "t01", "failed", reason="the disk is gone")
    write_status(folder, "t00", "running")
    with pytest.raises(
        IncompleteRunError, match=r"^1 of 2 trials did not finish \(t01\); the disk is gone; the time bud"
    ):
        conclude(two, read_run(folder), board, spent)


def test_conclude_with_trials_left_out(two, folder, board):
    write_status(folder, "t01", "pending")
    budget = Budget(max_trials=1)
    words = "--max-trials 1 is reached; 1 of 2 trials are not at their end (t01)"
    assert conclude(two, read_run(folder), board, budget, ["t01"]) == words
    write_status(folder, "t00", "running")
    with pytest.raises(IncompleteRunError, match=r"1 of 2 trials did not finish \(t00\)"):
        conclude(two, read_run(folder), board, budget, ["t01"])
    write_status(folder, "t00", "stopped", reason="the loss became nan")
    with pytest.raises(NonFiniteLossError, match="t00: the loss became nan; --max-trials 1 is reached"):
        conclude(two, read_run(folder), board, budget, ["t01"])


def test_conclude_says_which_trials_ended_before_their_floor(two, folder, board):
    write_status(folder, "t00", "finished", reason="it reached limit.seconds 5")
    write_status(folder, "t01", "dominated", reason="worse at all 4 snapshots")
    assert conclude(two, read_run(folder), board) == ""
    assert "t00 finished: it reached limit.seconds 5; its snapshots stand" in said(board)
    assert "t01 stopped by the scheduler: worse at all 4 snapshots; its snapshots stand" in said(board)
    assert is_complete(two, read_run(folder))


def test_check_out_of_an_unfinished_run_of_an_earlier_version_is_refused(tiny, folder):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["shrink"]["pressure"], config["evaluation"]["ladder"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    older = RunConfig.model_validate(config)
    with pytest.raises(RunFolderError, match=r"a run of an earlier version .no evaluation.ladder, shrink.pressure in"):
        check_out(older, [spec_of(older)], folder, stored_run(folder))
    write_status(folder, "t00", "finished")  # with nothing left to search no rule matters
    assert check_out(older, [spec_of(older)], folder, stored_run(folder)) == folder
