from __future__ import annotations

import math

import pandas as pd
import pytest

from analysis.frame import RunWarning, load_runs
from analysis.measurements import (
    architectures,
    load_measurements,
    load_results,
    load_retrained,
    retrained_networks,
    with_measurements,
    with_retrained,
)
from analysis.pareto import front_of
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.errors import UserError
from dnad_ray.run_folder.records import Measurement
from dnad_ray.run_folder.writing import create_run, write_measurement, write_result, write_snapshot


@pytest.fixture
def folder(tmp_path, dense, snapshot):
    """Architecture A found by two trials, with errors 0.1 and 0.2, and at another width; B once."""
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    first, second = dense(2), dense(3)
    for trial, genotype, values in (
        ("t0", first, {"proxy_accuracy": 0.9, "device_seconds": 9.0}),
        ("t1", first, {"proxy_accuracy": 0.8, "device_seconds": 1.0}),
        ("t2", first, {"proxy_accuracy": 0.5, "init_channels": 16}),
        ("t3", second, {"proxy_accuracy": 0.7}),
    ):
        write_snapshot(folder, snapshot(genotype, trial=trial, **values), genotype)
    return folder


def test_architectures_are_one_row_with_several_measurements(folder):
    frame = load_runs(folder)
    table = architectures(frame)
    assert table["trial"].tolist() == ["t0", "t2", "t3"]
    assert table.index.tolist() == [0, 2, 3]
    assert table["num_measurements"].tolist() == [2, 1, 1]
    assert table["error_mean"].iloc[0] == pytest.approx(0.15)
    assert table["error_std"].iloc[0] == pytest.approx(math.sqrt(2 * 0.05**2))  # n - 1 = 1
    assert table["error_worst"].iloc[0] == pytest.approx(0.2)
    assert table["error_std"].isna().tolist() == [False, True, True]
    assert table["num_trials"].tolist() == [2, 1, 1]
    assert len(architectures(frame.iloc[:0])) == 0
    with pytest.raises(UserError, match="no column counter"):
        architectures(frame.drop(columns="counter"))


def test_load_retrained_reads_what_training_left(folder, retrained):
    frame = load_runs(folder)
    assert len(load_retrained(folder)) == 0
    for seed, accuracy in ((0, 0.94), (1, 0.96)):
        write_result(folder, retrained(frame.iloc[0], seed=seed, accuracy=accuracy))
    table = load_retrained(folder)
    assert table["accuracy"].tolist() == [0.94, 0.96]
    assert table["test_error"].tolist() == [1 - 0.94, 1 - 0.96]
    assert (table["run_path"] == str(folder)).all()
    (folder / "retrained" / "broken").mkdir()
    (folder / "retrained" / "broken" / "result.json").write_text("{")
    with pytest.warns(RunWarning, match=r"broken/result\.json cannot be read"):
        assert len(load_retrained(folder)) == 2


def test_with_retrained_adds_means_over_seeds_and_never_touches_the_proxy(folder, retrained):
    frame = load_runs(folder)
    for seed, accuracy in ((0, 0.94), (1, 0.96)):
        write_result(folder, retrained(frame.iloc[0], seed=seed, accuracy=accuracy))
    write_result(folder, retrained(frame.iloc[3], seed=0, accuracy=0.99, inherited=True))
    table = with_retrained(frame, load_retrained(folder))
    assert table["accuracy"].tolist()[:3] == pytest.approx([0.95] * 3)
    assert table["accuracy"].isna().tolist() == [False, False, False, True]  # inherited weights are not from scratch
    assert table["num_seeds"].tolist()[:3] == [2] * 3
    pd.testing.assert_frame_equal(table[frame.columns], frame)
    assert front_of(table, ("test_error", "macs")).index.tolist() == [1]  # the same network thrice; least compute
    with pytest.raises(UserError, match="never both"):
        front_of(table, ("error", "test_error"))


def test_with_retrained_does_not_mix_protocols(folder, retrained):
    frame = load_runs(folder)
    for protocol in ("long", "short"):
        write_result(folder, retrained(frame.iloc[0], protocol=protocol, job=protocol))
    table = load_retrained(folder)
    with pytest.raises(UserError, match="one of long, short"):
        with_retrained(frame, table)
    assert with_retrained(frame, table, "long")["accuracy"].notna().sum() == 3
    with pytest.raises(UserError, match="got 'other'"):
        with_retrained(frame, table, "other")
    write_result(folder, retrained(frame.iloc[0], protocol="long", job="wide", init_channels=36))
    with pytest.raises(UserError, match="several init_channels"):
        with_retrained(frame, load_retrained(folder), "long")


def test_retrained_networks_are_rows_that_fronts_take(folder, retrained):
    frame = load_runs(folder)
    for row, accuracy in ((0, 0.9), (3, 0.95)):
        for seed in (0, 1):
            write_result(folder, retrained(frame.iloc[row], seed=seed, accuracy=accuracy + seed / 100))
    networks = retrained_networks(load_retrained(folder))
    assert networks["num_seeds"].tolist() == [2, 2]
    assert sorted(networks["accuracy"]) == pytest.approx([0.905, 0.955])
    assert networks["accuracy_std"].tolist() == pytest.approx([math.sqrt(2) * 0.005] * 2)
    front = front_of(networks, ("test_error", "macs", "params"))
    assert front["accuracy"].tolist() == pytest.approx([0.905, 0.955])
    assert len(retrained_networks(load_retrained(folder).iloc[:0])) == 0


def measured(frame, name, latency, **values):
    about = {
        "run": "demo", "digest": frame["digest"][0], "model": "genotype", "init_channels": 8, "width": 1.0,
        "image_size": 8, "batch_size": 1, "device": "cpu", "device_name": name, "threads": 1, "repeats": 50,
        "latency_p50": latency, "latency_p90": latency, "latency_p99": latency, "peak_memory": 1000,
    }  # fmt: skip
    return Measurement(**(about | values))


def test_load_results_adds_what_the_metrics_ask_for(folder, retrained):
    frame = load_runs(folder)
    pd.testing.assert_frame_equal(load_results(folder, ["error", "macs"]), frame)
    for threads, latency in ((1, 8.0), (2, 5.0)):
        write_measurement(folder, measured(frame, "a", latency, threads=threads))
    write_result(folder, retrained(frame.iloc[3], accuracy=0.75))
    with pytest.raises(UserError, match=r"several threads of one network.* threads=1 or threads=2$"):
        load_results(folder, ["latency_p50"])
    both = load_results(folder, ["latency_p50", "test_error"], {"threads": 2})
    assert both["latency_p50"].tolist()[:2] == [5.0, 5.0]
    assert both["test_error"].isna().tolist() == [True, True, True, False]
    assert both["test_error"].iloc[3] == 0.25
    pd.testing.assert_frame_equal(both[frame.columns], frame)
    assert "test_error" not in load_results(folder, ["peak_memory"], {"threads": "1"})
    with pytest.raises(UserError, match="--where threads: got '3'; allowed: 1, 2"):
        load_results(folder, ["latency_p50"], {"threads": 3})
    with pytest.raises(UserError, match=r"--where: got 'colour'; allowed: .*device_name"):
        load_results(folder, ["latency_p50"], {"colour": "red"})
    with pytest.raises(UserError, match="--where: got 'threads'; allowed: nothing without"):
        load_results(folder, ["error"], {"threads": 1})


def test_with_measurements_joins_the_same_width_and_asks_where_machines_differ(folder):
    frame = load_runs(folder)
    for name, latency in (("slow", 8.0), ("fast", 2.0)):
        write_measurement(folder, measured(frame, name, latency))
    table = load_measurements(folder)
    assert len(table) == 2
    with pytest.raises(UserError, match="several device_name"):
        with_measurements(frame, table)
    joined = with_measurements(frame, table, device_name="fast")
    assert joined["latency_p50"].tolist()[:2] == [2.0, 2.0]
    assert joined["latency_p50"].isna().tolist() == [False, False, True, True]
    assert front_of(joined, ("error", "latency_p50")).index.tolist() == [0]
    with pytest.raises(UserError, match="got 'colour'"):
        with_measurements(frame, table, colour="red")
