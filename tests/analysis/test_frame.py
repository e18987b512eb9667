from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest

from analysis.frame import (
    HISTORY_COLUMNS,
    RunWarning,
    history_frame,
    load_history,
    load_runs,
    read_runs,
    setting_of,
    snapshot_frame,
    to_records,
)
from analysis.measurements import retrained_frame
from analysis.report.summary import summarise
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder import reading
from dnad_ray.run_folder.images import ClassImages, ImagesRecord
from dnad_ray.run_folder.records import SNAPSHOT_COLUMNS
from dnad_ray.run_folder.writing import create_run, write_parquet, write_snapshot, write_status
from dnad_ray.storage.files import write_json

SWEEP = (
    {"seed": 0, "shrink.rate": 0.1, "distill.kind": "none"},
    {"seed": 0, "shrink.rate": 0.05, "distill.kind": "logits"},
    {"seed": 1, "shrink.rate": 0.1, "distill.kind": "none"},
)


def test_load_runs_has_a_row_per_snapshot(make_run):
    frame = load_runs(make_run(trials=SWEEP, epochs=3))
    assert tuple(frame.columns[: len(SNAPSHOT_COLUMNS)]) == SNAPSHOT_COLUMNS
    assert list(frame.columns[len(SNAPSHOT_COLUMNS) :][:2]) == ["error", "run_path"]
    assert list(zip(frame["trial"], frame["step"], strict=True)) == [
        (trial, step) for trial in ("t0", "t1", "t2") for step in (45, 90, 135)
    ]
    assert frame["costs_traced"].dtype == bool
    assert (frame["error"] == 1 - frame["proxy_accuracy"]).all()
    assert frame["kd_temperature"].isna().tolist() == [True] * 3 + [False] * 3 + [True] * 3


def test_load_runs_config_columns_are_those_of_the_trial(make_run):
    frame = load_runs(make_run(trials=SWEEP, epochs=1)).set_index("trial")
    assert frame["config.shrink.rate"].tolist() == [0.1, 0.05, 0.1]
    assert frame["config.distill.kind"].tolist() == ["none", "logits", "none"]
    assert frame["config.seed"].tolist() == [0, 0, 1]
    assert frame["config.train.epochs"].tolist() == [120] * 3
    assert frame["config.train.betas"].tolist() == ["[0.5, 0.999]"] * 3


def test_load_runs_varied_key_that_nobody_wrote_down_is_unknown(tmp_path, dense, snapshot):
    config = RunConfig.model_validate({"sweep": {"grid": {"train.batch_size": (32, 64)}}})
    folder = create_run(tmp_path / "demo", config_to_dict(config), "0.0.0")
    for trial in ("t0", "t1"):
        write_snapshot(folder, snapshot(dense(), trial=trial), dense())
    assert load_runs(folder)["config.train.batch_size"].isna().all()
    for trial, size in (("t0", 32), ("t1", 64)):
        write_status(folder, trial, "finished", overrides={"train.batch_size": size})
    frame = load_runs(folder)
    assert frame["config.train.batch_size"].tolist() == [32, 64]
    assert setting_of(frame).tolist() == ["train.batch_size 32", "train.batch_size 64"]


def test_runs_of_unlike_images_are_warned_about(tmp_path, dense, snapshot):
    def run(name, root, images=None):
        config = RunConfig.model_validate({"data": {"name": "imagefolder", "root": root}})
        folder = create_run(tmp_path / name, config_to_dict(config), "0.0.0", images)
        write_snapshot(folder, snapshot(dense(), run=name), dense())
        return folder

    def record(count, *classes):
        entries = tuple(ClassImages(count=count, names="n", content="c") for _ in classes)
        return ImagesRecord(
            name="imagefolder", classes=classes, image_size=8, channels=1, num_train=1, num_validation=1, num_test=0,
            parts={"train": entries},
        )  # fmt: skip

    first, same = run("a", "/images", record(2, "x", "y")), run("b", "/moved", record(2, "x", "y"))
    assert len(load_runs([first, same])) == 2
    for number, (folder, words) in enumerate(
        [
            (run("c", "/images", record(3, "x", "y")), r"train images of class 'x': 3, were 2"),
            (run("d", "/images", record(2, "x", "z")), r"new classes z, classes y are gone"),
            (run("e", "/old"), r"imagefolder /old, not imagefolder /images"),
        ]
    ):
        with pytest.warns(RunWarning, match=rf"run {folder.name} has other images than a \(.*{words}.*cannot be comp"):
            assert len(load_runs([first, folder])) == 2, number
    assert len(load_runs([run("f", "/old"), run("g", "/old")])) == 2  # of versions that kept no record
    with pytest.warns(RunWarning):
        runs = read_runs([first, tmp_path / "c"])
    summary = summarise(runs, snapshot_frame(runs), history_frame(runs), retrained_frame(runs))
    assert summary.cautions[0].startswith("run c has other images than a ")


def test_load_runs_without_snapshots_keeps_columns_and_types(tmp_path, make_run):
    empty = load_runs(create_run(tmp_path / "empty", config_to_dict(RunConfig()), "0.0.0"))
    full = load_runs(make_run(epochs=1))
    assert len(empty) == 0
    assert set(empty.columns) == {name for name in full.columns if not name.startswith("config.sweep.grid.")}
    assert {name: str(empty[name].dtype) for name in empty} == {name: str(full[name].dtype) for name in empty}
    assert len(setting_of(empty)) == 0


def test_load_runs_same_folder_twice_counts_once(make_run, monkeypatch):
    folder = make_run(epochs=2)
    monkeypatch.chdir(folder.parent)
    assert len(load_runs([folder, "demo", str(folder)])) == 2


def test_load_runs_same_name_is_told_apart_by_path(make_run):
    first, second, third = make_run("a/demo", epochs=1), make_run("b/demo", epochs=1), make_run("other", epochs=1)
    frame = load_runs([first, second, third])
    assert frame["run"].tolist() == ["demo (a/demo)", "demo (b/demo)", "other"]
    assert frame["run_path"].tolist() == [str(first), str(second), str(third)]
    assert load_history([first, second])["run"].tolist() == ["demo (a/demo)", "demo (b/demo)"]


@pytest.mark.parametrize("paths", [[], ()])
def test_load_runs_of_nothing_is_refused(paths):
    with pytest.raises(RunFolderError, match="at least one run folder"):
        load_runs(paths)


def test_load_runs_foreign_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"run\.json"):
        load_runs(tmp_path)


def test_load_runs_broken_files_warn_and_the_rest_stands(make_run):
    folder = make_run(epochs=3)
    snapshots = sorted(folder.glob("trials/t0/snapshots/*.json"))
    snapshots[0].write_text("{")
    write_json(snapshots[1], json.loads(snapshots[1].read_text()) | {"macs": "many"})
    with pytest.warns(RunWarning) as caught:
        frame = load_runs(folder)
    messages = sorted(str(warning.message) for warning in caught)
    assert len(messages) == 2
    assert "cannot be read" in messages[0]
    assert messages[1] == "run demo: 00000090.json is not a snapshot: macs is 'many', not of type int"
    assert frame["step"].tolist() == [135]


def test_load_runs_counts_wrong_records_and_repeats_no_warning(make_run):
    folder = make_run(epochs=7)
    (folder / "trials" / "t0" / "history.json").write_text("[" + "{}," * 49 + "{}]")
    for file in sorted(folder.glob("trials/t0/snapshots/*.json"))[:6]:
        file.write_text("{}")
    with pytest.warns(RunWarning) as caught:
        frame = load_runs(folder)
    messages = [str(warning.message).removeprefix("run demo: ") for warning in caught]
    assert len(frame) == 1
    assert messages[3] == "3 more snapshots of trial t0 are left out"
    assert messages[4] == "trial t0, epoch report 1 is left out: the key 'step' is missing"
    assert messages[7:] == ["47 more epoch reports of trial t0 are left out"]


def test_load_history_of_a_giant_file_reads_the_beginning(make_run, monkeypatch):
    monkeypatch.setattr(reading, "_MOST_EPOCHS", 2)
    with pytest.warns(RunWarning, match=r"history\.json of trial t0 holds 3 epochs; 2 are read"):
        assert load_history(make_run(epochs=3))["epoch"].tolist() == [1, 2]


def test_load_runs_of_many_runs_is_what_each_run_gives(make_run):
    few = [make_run(f"run{number}", trials=SWEEP[:number], epochs=number) for number in (1, 2, 3)]
    write_parquet(few[1])  # its text is stored as dictionaries
    empty = create_run(few[0].parent / "empty", config_to_dict(RunConfig()), "0.0.0")
    together = load_runs([few[0], empty, *few[1:]])
    single = [load_runs(folder) for folder in few]
    assert len(together) == 1 + 2 * 2 + 3 * 3
    for name in single[2]:
        assert together[name].astype(object).where(together[name].notna(), None).tolist() == [
            None if pd.isna(value) else value for frame in single for value in frame.get(name, [None] * len(frame))
        ], name


def test_load_runs_reads_a_run_of_which_only_the_table_is_left(make_run):
    folder = make_run(epochs=2)
    write_parquet(folder)
    shutil.rmtree(folder / "trials")
    frame = load_runs(folder)
    assert frame["step"].tolist() == [45, 90]
    assert frame["config.shrink.rate"].tolist() == [0.05, 0.05]


def test_load_history_has_a_row_per_epoch(make_run):
    history = load_history(make_run(trials=SWEEP, epochs=2))
    assert tuple(history.columns) == HISTORY_COLUMNS
    assert history["epoch"].tolist() == [1, 2] * 3
    assert history["seed"].tolist() == [0, 0, 0, 0, 1, 1]
    assert history["shrink_rate"].tolist() == [0.1, 0.1, 0.05, 0.05, 0.1, 0.1]
    assert history["kd_loss"].isna().tolist() == [True, True, False, False, True, True]


def test_load_history_trial_without_snapshot_has_unknown_setting(make_run):
    folder = make_run(epochs=2)
    shutil.rmtree(folder / "trials" / "t0" / "snapshots")
    history = load_history(folder)
    assert len(history) == 2
    assert history[["seed", "shrink_rate", "kd_kind", "kd_temperature"]].isna().all(axis=None)
    (folder / "trials" / "t0" / "history.json").write_text('[{"epoch": 1}, 3]')
    with pytest.warns(RunWarning, match="epoch report") as caught:
        assert len(load_history(folder)) == 0
    assert len(caught) == 2


def test_setting_of_names_what_varies_in_order_of_values(make_run):
    settings = setting_of(load_runs(make_run(trials=SWEEP, epochs=1)))
    low, high = "Shrink rate 0.05, KD logits, KD temperature 4", "Shrink rate 0.1, KD none"
    assert settings.tolist() == [high, low, high]
    assert settings.cat.categories.tolist() == [low, high]


def test_setting_of_sorts_numbers_as_numbers(make_run):
    trials = [{"seed": 0, "shrink.rate": rate} for rate in (0.5, 0.05, 1.0)]
    settings = setting_of(load_runs(make_run(trials=trials, epochs=1)))
    assert settings.cat.categories.tolist() == ["Shrink rate 0.05", "Shrink rate 0.5", "Shrink rate 1"]


def test_setting_of_leaves_the_seed_out(make_run):
    one = make_run(trials=[{"seed": 0}, {"seed": 1}], epochs=1)
    assert set(setting_of(load_runs(one))) == {"all trials"}
    other = make_run("other", trials=[{"seed": 0}], epochs=1)
    assert set(setting_of(load_runs([one, other]))) == {"demo", "other"}


def test_setting_of_stays_one_where_the_rate_changes_on_the_way(tmp_path, dense, snapshot):
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    for step, rate in ((10, 0.1), (20, 0.05)):
        write_snapshot(folder, snapshot(dense(), step=step, shrink_rate=rate), dense())
    assert set(setting_of(load_runs(folder))) == {"all trials"}


def test_to_records_are_plain_json(make_run):
    records = to_records(load_runs(make_run(epochs=1)))
    assert json.loads(json.dumps(records, allow_nan=False)) == records
    assert records[0]["kd_temperature"] is None
    assert type(records[0]["macs"]) is int
    odd = pd.DataFrame({"a": [float("inf")], "b": pd.array([None], dtype="Int64")})
    assert to_records(odd) == [{"a": None, "b": None}]
