from __future__ import annotations

import pytest

from analysis.frame import history_frame, read_runs, snapshot_frame
from analysis.measurements import retrained_frame
from analysis.report.summary import summarise, trained_front
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.run_folder.writing import create_run, write_result, write_snapshot, write_status


def summary_of(*folders):
    runs = read_runs(folders)
    frame = snapshot_frame(runs)
    return summarise(runs, frame, history_frame(runs), retrained_frame(runs)), frame


@pytest.fixture
def folder(tmp_path, dense, snapshot):
    """One trial with three networks that bend: 50 % at 10, 20 % at 20 and 10 % at 110 MACs."""
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    for step, accuracy, macs in ((10, 0.9, 110), (20, 0.8, 20), (30, 0.5, 10)):
        genotype = dense(step // 10, 1)
        values = {"proxy_accuracy": accuracy, "macs": macs, "params": macs, "device_seconds": 10.0 * step}
        write_snapshot(folder, snapshot(genotype, step=step, **values), genotype)
    write_status(folder, "t0", "finished")
    return folder


def test_summarise_says_what_was_found(folder):
    summary, frame = summary_of(folder)
    assert summary.sentences == (
        "1 run with 1 trial (searches) left 3 snapshots (recorded networks) of 3 architectures.",
        "Trials: 1 finished.",
        "The front holds 3 networks, from a proxy error of 10.00% at 110 MACs to 50.00% at 10 MACs.",
        # Boxes under (error 1, MACs 110, parameters 110): 0.8 x (90/110)^2 and 0.5 x (100/110)^2, less their overlap.
        f"It beats {0.8 * (90 / 110) ** 2 + 0.5 * ((100 / 110) ** 2 - (90 / 110) ** 2):.4f} of the box from zero to "
        "the reference point (Proxy error 100.00%, MACs 110, Parameters 110; costs are those of the densest network): "
        "its hypervolume, which is better the larger it is.",
        "The trials took 300.0 device-seconds on cpu.",
    )
    assert [(pick.title, frame["macs"][pick.label]) for pick in summary.picks] == [
        ("Best", 110),
        ("Knee", 20),
        ("Smallest", 10),
    ]
    assert summary.unfinished == summary.cautions == summary.problems == ()


def test_summarise_prefers_a_best_network_that_was_scored_on_all_images(folder, dense, snapshot):
    genotype = dense(4, 1)
    values = {"proxy_accuracy": 0.99, "macs": 50, "params": 50, "kind": "ladder", "rung": 1}
    write_snapshot(folder, snapshot(genotype, step=40, **values), genotype)
    summary, frame = summary_of(folder)
    # It keeps the network of 110 MACs off the front, but has no more than a score of few images.
    best = summary.picks[0]
    assert (best.why, frame["macs"][best.label]) == (
        "the lowest proxy error of the networks scored on all validation images",
        110,
    )
    assert summary.cautions == (
        "1 of the 3 networks on the front were scored on a part of the validation images only (kind ladder): their "
        "errors are less certain, and the lowest of them are too low.",
    )


def test_summarise_says_who_did_not_finish_and_why(make_run):
    states = {
        0: {"state": "stopped", "reason": "the training loss became NaN"},
        2: {"state": "running"},
        3: {"state": "failed", "reason": "the worker died"},
    }
    summary, _ = summary_of(make_run(trials=[{"seed": seed} for seed in range(4)], states=states, epochs=2))
    assert "Trials: 1 finished, 1 still running or interrupted, 1 stopped early, 1 failed." in summary.sentences
    assert [tuple(trial) for trial in summary.unfinished] == [
        ("demo", "t0", "stopped early", "the training loss became NaN"),
        ("demo", "t2", "still running or interrupted", ""),
        ("demo", "t3", "failed", "the worker died"),
    ]


def test_summarise_survives_states_of_newer_versions(make_run):
    run = make_run(trials=[{"seed": seed} for seed in range(4)], states={2: {"state": "dominated"}}, epochs=2)
    (run / "trials" / "t0" / "status.json").write_text('{"state": "archived"}')
    (run / "trials" / "t1" / "status.json").write_text('{"state": ["finished"], "reason": "odd"}')
    summary, _ = summary_of(run)
    assert "Trials: 1 finished, 1 stopped by the scheduler, 2 without a known status." in summary.sentences
    assert [tuple(trial) for trial in summary.unfinished] == [
        ("demo", "t0", "without a known status", ""),
        ("demo", "t1", "without a known status", "odd"),
        ("demo", "t2", "stopped by the scheduler", ""),
    ]


def test_summarise_warns_where_measurements_differ(folder, dense, snapshot):
    write_snapshot(folder, snapshot(dense(), trial="t1", image_size=32), dense())
    summary, _ = summary_of(folder)
    assert summary.cautions == (
        "Snapshots differ in the image size (32, 8): their errors or costs cannot be compared.",
    )


def test_summarise_a_run_without_snapshots(tmp_path):
    summary, _ = summary_of(create_run(tmp_path / "new", config_to_dict(RunConfig()), "0.0.0"))
    assert summary.sentences == ("1 run with 0 trials (searches) left no snapshot yet.",)
    assert summary.picks == ()


def test_summarise_picks_among_trained_networks_and_leaves_baselines_out(folder, tmp_path, retrained):
    row = summary_of(folder)[1].iloc[0]
    without_search = create_run(tmp_path / "plain", config_to_dict(RunConfig()), "0.0.0")
    for width, accuracy, macs in ((2, 0.5, 10), (4, 0.8, 20), (6, 0.9, 110), (8, 0.7, 60)):
        values = {"origin": "plain", "init_channels": width, "accuracy": accuracy, "macs": macs, "params": macs}
        write_result(without_search, retrained(row, run="plain", job=f"width-{width}", **values))
    better = {"accuracy": 0.99, "macs": 5, "params": 5, "init_channels": 3}
    write_result(without_search, retrained(row, run="plain", job="other", origin="random", **better))
    summary, _ = summary_of(without_search)
    front = trained_front(retrained_frame(read_runs(without_search)))
    assert [(pick.title, pick.why.split(",")[0], front["macs"][pick.label]) for pick in summary.trained] == [
        ("Best", "the lowest error after training", 110),
        ("Knee", "where the front bends most: more MACs gain little beyond it", 20),
        ("Smallest", "the fewest MACs", 10),
    ]
    # Nothing is said of searches that there were none of.
    (only,) = summary.sentences
    assert only.startswith("5 networks trained from scratch; the best has an error of 1.00% on test images")


def test_summarise_one_network(tmp_path, dense, snapshot):
    folder = create_run(tmp_path / "one", config_to_dict(RunConfig()), "0.0.0")
    write_snapshot(folder, snapshot(dense(), run="one", macs=5), dense())
    summary, _ = summary_of(folder)
    assert "The front is one network: proxy error 10.00% at 5 MACs." in summary.sentences
    assert [pick.title for pick in summary.picks] == ["Best and smallest"]
    # Of equal MACs and more error, but with fewer parameters: on the front too.
    write_snapshot(folder, snapshot(dense(2), run="one", step=20, macs=5, params=1, proxy_accuracy=0.5), dense(2))
    summary, _ = summary_of(folder)
    said = "The front holds 2 networks; the smallest has the lowest proxy error too: 10.00% at 5 MACs."
    assert said in summary.sentences
    assert [pick.title for pick in summary.picks] == ["Best and smallest"]
