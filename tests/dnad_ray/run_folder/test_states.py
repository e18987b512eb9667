"""The table of states: who is left alone, who is told what, and what a file may say."""

from __future__ import annotations

import pytest

from dnad_ray.run_folder.jobs import read_job_status
from dnad_ray.run_folder.reading import read_status
from dnad_ray.run_folder.states import TrialState, state_of
from dnad_ray.run_folder.writing import write_job_status, write_status
from dnad_ray.storage.checksums import parse_record


def test_states_of_a_resume():
    alone = {state.value for state in TrialState if state.is_finished}
    assert alone == {"finished", "stopped", "dominated"}
    told = {state.value for state in TrialState if state.is_over}
    assert told == alone | {"failed", "interrupted", "paused"}


def test_states_loggers_agree_about_every_end():
    ended = {state: (state.mlflow, state.exit_code) for state in TrialState if state.is_over}
    assert set(ended.values()) == {("FINISHED", 0), ("FAILED", 1), ("KILLED", 255)}
    assert {state.value for state, told in ended.items() if told == ("FINISHED", 0)} == {"finished", "dominated"}
    # What a resume continues has neither succeeded nor failed.
    assert {state.value for state, told in ended.items() if told == ("KILLED", 255)} == {"interrupted", "paused"}


def test_states_have_a_place_each():
    assert sorted(state.rank for state in TrialState) == list(range(len(TrialState)))
    assert min(TrialState, key=lambda state: state.rank) is TrialState.RUNNING


@pytest.mark.parametrize("value", [None, "", "Finished", "archived", 3, True, float("nan"), [], ["finished"], {"a": 1}])
def test_state_of_anything_else_is_unknown(value):
    assert state_of(value) is TrialState.UNKNOWN


@pytest.mark.parametrize("state", list(TrialState))
def test_states_are_text_on_the_way_to_a_file_and_members_on_the_way_back(state, tmp_path):
    write_status(tmp_path, "t00", state, attempt=2)
    content = (tmp_path / "trials" / "t00" / "status.json").read_bytes()
    assert parse_record(content, "status") == {"state": str(state), "attempt": 2}
    assert read_status(tmp_path, "t00")["state"] is state
    write_job_status(tmp_path, "j0", state.value)
    assert read_job_status(tmp_path, "j0") == {"state": state}
    assert (f"{state}", state_of(state.value)) == (state.value, state)


def test_write_status_refuses_what_is_no_state(tmp_path):
    with pytest.raises(ValueError, match="'done' is not a valid TrialState"):
        write_status(tmp_path, "t00", "done")
    assert not (tmp_path / "trials").exists()


@pytest.mark.parametrize("content", ["", "[]", '{"state": "runn', '{"state": ["finished"]}', '{"reason": "edited"}'])
def test_read_job_status_of_anything_else_is_unknown(content, tmp_path):
    folder = tmp_path / "retrained" / "j0"
    folder.mkdir(parents=True)
    (folder / "status.json").write_text(content)
    assert read_job_status(tmp_path, "j0")["state"] is TrialState.UNKNOWN
