"""One flipped bit costs at most the run that it is in: a run beside it is shown in full, with every reader."""

from __future__ import annotations

import random
import shutil
import warnings

import pandas as pd
import pytest

from analysis.frame import RunWarning, history_frame, read_runs, snapshot_frame, weight_frame
from analysis.measurements import measurement_frame, retrained_frame
from analysis.pareto import front_of
from dnad_ray.errors import RunFolderError
from dnad_ray.run_folder.records import Measurement
from dnad_ray.run_folder.writing import write_measurement, write_parquet, write_result

FILES = (
    *("run.json", "config.yaml", "snapshots.parquet", "trials/t0/history.json", "trials/t0/status.json"),
    *("trials/t0/snapshots/00000045.json", "measured/*.json", "retrained/*/result.json"),
)
FRAMES = (snapshot_frame, history_frame, weight_frame, measurement_frame, retrained_frame)


@pytest.fixture
def runs(make_run, retrained):
    """Two whole runs; of the second one the table is read, not the files of its snapshots."""
    folders = [make_run(name, trials=[{"seed": 0, "shrink.rate": 0.1}], epochs=2) for name in ("good", "damaged")]
    for folder in folders:
        row = snapshot_frame(read_runs(folder)).iloc[0]
        about = {name: row[name] for name in ("run", "digest")} | {"model": "genotype", "device": "cpu"}
        shape = {"init_channels": 8, "width": 1.0, "image_size": 8, "batch_size": 1, "threads": 1, "repeats": 5}
        times = {"latency_p50": 1.0, "latency_p90": 1.0, "latency_p99": 1.0, "peak_memory": 1000}
        write_measurement(folder, Measurement(**about, **shape, **times, device_name="a"))
        write_result(folder, retrained(row))
        write_parquet(folder)
    return folders


def read_all(folders):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)
        found = read_runs(folders)
        frames = [frame_of(found) for frame_of in FRAMES]
        front_of(frames[0])
        return frames


def plain(frame):
    return frame.astype(object).where(frame.notna(), None)  # what is missing in both runs or in one has another type


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_leaves_the_run_beside_it_alone(name, runs):
    damaged = runs[1]
    whole = [frame[frame["run"] == "good"].reset_index(drop=True) for frame in read_all(runs)]
    assert [len(frame) for frame in whole] == [2, 2, 8, 1, 1]
    whole = [plain(frame) for frame in whole]
    (file,) = damaged.glob(name)
    content = file.read_bytes()
    rng = random.Random(name)
    for _ in range(20 if file.suffix == ".parquet" else 5):
        bit = rng.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            found = read_all(runs)
        except RunFolderError as error:
            if name == "run.json" and ("newer" in str(error) or "kind" in str(error)):
                continue  # a run of a newer version, or of another program, is refused, however it became one
            raise
        for frame, expected in zip(found, whole, strict=True):
            ours = frame[frame["run"] == "good"].reset_index(drop=True)[expected.columns]
            pd.testing.assert_frame_equal(plain(ours), expected)


def test_text_in_a_table_that_is_no_utf_8_is_no_traceback(runs):
    table = runs[1] / "snapshots.parquet"
    content = table.read_bytes()
    assert content.count(b"digits") > 0
    table.write_bytes(content.replace(b"digits", b"\xffigits"))  # a bit of the dataset's name, where it stands
    shutil.rmtree(runs[1] / "trials")
    with pytest.warns(RunWarning, match=r"snapshots\.parquet cannot be read"):
        found = read_runs(runs)
    assert snapshot_frame(found)["run"].tolist() == ["good"] * 2


@pytest.mark.parametrize("field", ["proxy_accuracy", "kd_weight", "device_seconds", "gamma"])
def test_an_integer_beyond_all_digits_of_a_float_is_no_traceback(field, runs):
    for file in runs[1].glob("trials/t0/snapshots/*45.json"):
        text = file.read_text()
        start = text.index(f'"{field}": ') + len(field) + 4
        file.write_text(text[:start] + str(2**62 + 1) + text[text.index(",", start) :])
    (runs[1] / "snapshots.parquet").unlink()
    assert (read_all(runs)[0]["run"] == "good").sum() == 2
