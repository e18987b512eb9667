"""A sweep over two machines that share no disk, and the loss of one of them with a running trial."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from analysis import front_of, load_runs
from dnad_ray.config.recipes import recipe_named
from dnad_ray.config.run import config_from_dict, config_to_dict, with_overrides
from dnad_ray.data.loading import load_data
from dnad_ray.distill.teacher import load_teacher, read_teacher
from dnad_ray.run_folder.reading import read_run
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.search.loop import SearchState, search
from dnad_ray.trials.spec import trials_of

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SECONDS = 400
CHUNK = 32 * 1024
# Images large enough that sending them again would be seen; long enough (9 s and more, checkpoints come after 5) that a
# trial is lost in its middle.
LONGER = {
    "data.image_size": 16,
    "train.batch_size": 384,
    "train.epochs": 36,
    "shrink.rate": 0.033,
    "shrink.floor.operations": 4,
    "distill.teacher.epochs": 2,
    "sweep.num_trials": 4,
    "sweep.grid": {},
}
SCRIPT = """
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(16))')
export RAY_debug_dump_period_milliseconds=300 RAY_object_manager_default_chunk_size={chunk}
python tests/cluster/two_nodes.py
"""


def without_seconds(row):
    return {key: value for key, value in row.items() if key != "device_seconds"}


def undisturbed(contents, folder, data, trial):
    """The records of the same trial, searched in this process without a break."""
    teacher = load_teacher(read_teacher(folder / "teacher"), torch.device("cpu"))
    (spec,) = (spec for spec in trials_of(config_from_dict(contents.config)) if spec.name == trial)
    state = SearchState.start(spec.config, data, teacher, run=folder.name, trial=trial)
    return [without_seconds(event.to_dict()) for event in search(state) if isinstance(event, Snapshot)]


def test_sweep_over_two_machines_of_which_one_is_lost(inside, tmp_path):
    config = with_overrides(recipe_named("smoke"), LONGER)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config_to_dict(config)))
    (tmp_path / "out").mkdir()
    code, said = inside(SCRIPT.replace("{chunk}", str(CHUNK)), SECONDS)
    assert code == 0, said
    observed = json.loads((tmp_path / "observed.json").read_text())
    assert observed["code"] == 0, said

    # Both machines had trials, and what both recorded is there and on one front.
    folder = tmp_path / "out" / "demo"
    contents = read_run(folder)
    assert contents.problems == ()
    assert {entry["state"] for entry in contents.status.values()} == {"finished"}
    hosts = {name: entry["host"] for name, entry in contents.status.items()}
    assert observed["finished_on_second"]
    assert {hosts[name] for name in observed["finished_on_second"]} == {"second"}
    assert len(set(hosts.values())) == 2
    frame = load_runs(folder)
    assert set(frame["trial"]) == set(hosts)
    front = json.loads((folder / "front.json").read_text())
    assert [(row["trial"], row["step"]) for row in front] == [
        (row["trial"], row["step"]) for row in front_of(frame).to_dict("records")
    ]

    # Images and teacher came to the second machine once for its two trials: sent per trial it were twice as much.
    data = load_data(config.data)
    once = sum(array.nbytes for split in (data.train, data.validation) for array in (split.images, split.labels)) + sum(
        path.stat().st_size for path in (folder / "teacher").iterdir()
    )
    assert once > 8 * CHUNK
    assert once <= observed["chunks"] * CHUNK < 1.8 * once, (observed, once)

    # The trial that was lost went on from its checkpoint: a second attempt, on the other machine, and the same records.
    (lost,) = observed["lost"]
    assert contents.status[lost]["attempt"] == 2
    assert contents.status[lost]["from_step"] >= observed["checkpoints"][-1] > 0
    assert hosts[lost] != "second"
    steps = [row["step"] for row in contents.snapshots if row["trial"] == lost]
    assert observed["before"][lost] == steps[: len(observed["before"][lost])]
    assert len(observed["before"][lost]) < len(steps)
    assert {entry["attempt"] for name, entry in contents.status.items() if name != lost} == {1}
    rows = [without_seconds(row) for row in contents.snapshots if row["trial"] == lost]
    assert rows == undisturbed(contents, folder, data, lost)
