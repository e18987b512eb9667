from __future__ import annotations

import math

import optuna
import pandas as pd
import pytest

from analysis.charts.front import plot_front
from analysis.frame import load_runs
from analysis.interop.optuna_studies import from_optuna, to_optuna
from analysis.interop.tables import from_frame, read_points, write_points
from analysis.interop.tune_results import from_result_grid, to_tune_points
from analysis.pareto import front_of, hypervolume
from analysis.quality import compare_fronts, coverage
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import Metric

NAN = float("nan")


def test_from_frame_brings_names_units_and_what_charts_ask_for():
    given = pd.DataFrame({"top1": [75.5, 80.0], "GFLOPs": [1.2, 2.0], "ms": [1500, 20]})
    copy = given.copy()
    taken = from_frame(
        given,
        {"top1": "accuracy", "GFLOPs": "macs", "ms": "latency_p50"},
        {"accuracy": "%", "macs": "GFLOPs", "latency_p50": "us"},
        origin="paper",
    )
    assert taken["test_error"].tolist() == [0.245, 0.2]
    assert taken["macs"].tolist() == [0.6e9, 1.0e9]  # two operations are one multiply-add
    assert taken["latency_p50"].tolist() == [1.5, 0.02]
    assert taken["run"].tolist() == ["paper"] * 2
    pd.testing.assert_frame_equal(given, copy)
    assert from_frame(pd.DataFrame({"latency_p50": [0.25]}), units={"latency_p50": "s"})["latency_p50"].tolist() == [
        250
    ]


@pytest.mark.parametrize(
    ("columns", "units", "words"),
    [
        ({"error": [7.5]}, {}, "units={'error': '%'}"),  # per cent that were not said to be
        ({"error": [-0.1]}, {}, "0 to 1"),
        ({"macs": ["12M"]}, {}, "column macs: got '12M'; allowed: numbers"),
        ({"macs": [True]}, {}, "allowed: numbers"),
        ({"macs": [1]}, {"macs": "ms"}, "unit of macs: got 'ms'; allowed: FLOPs, G"),
        ({"macs": [1]}, {"params": "M"}, "got 'params'; allowed: one of macs"),
        ({"speed": [1]}, {"speed": "ms"}, "the table knows no unit of it"),
        ({}, {}, "at least one row"),
    ],
)
def test_from_frame_refuses_in_words(columns, units, words):
    with pytest.raises(UserError) as caught:
        from_frame(pd.DataFrame(columns), units=units)
    assert words in str(caught.value)


def test_from_frame_refuses_names_that_are_missing_or_there_twice():
    frame = pd.DataFrame({"a": [1], "macs": [2]})
    with pytest.raises(UserError, match="got 'b'; allowed: one of a, macs"):
        from_frame(frame, {"b": "macs"})
    with pytest.raises(UserError, match="each name once"):
        from_frame(frame, {"a": "macs"})


def test_foreign_points_with_gaps_ties_and_one_point_are_drawn_and_compared(make_run):
    ours = load_runs(make_run())
    theirs = from_frame(
        pd.DataFrame({"error": [0.3, 0.3, NAN, 0.2], "macs": [1e5, 1e5, 5.0, math.inf], "params": [9, 9, 9, 9]}),
        origin="theirs",
    )
    front = front_of(theirs)
    assert front.index.tolist() == [0, 1]  # a tie; NaN and infinity are no points
    assert coverage(ours, theirs.iloc[:1]) in (0.0, 1.0)
    both = pd.concat([ours, theirs], ignore_index=True)
    assert set(compare_fronts(both)["first"]) == {"demo", "theirs"}
    figure = plot_front(both, colour="run")
    drawn = [row for trace in figure.data if trace.customdata is not None for row in trace.customdata]
    assert sorted(drawn) == list(range(len(ours) + 2))
    alone = plot_front(theirs.iloc[:1], colour="run")
    assert [trace.name for trace in alone.data if trace.showlegend is not False] == ["theirs", "front"]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_points_come_back_from_a_file(make_run, tmp_path, suffix):
    front = front_of(load_runs(make_run(trials=[{"seed": 0}, {"seed": 1}])))
    file = write_points(front.assign(group=pd.Categorical(["a"] * len(front))), tmp_path / f"front.{suffix}")
    back = read_points(file)
    assert back["digest"].tolist() == front["digest"].tolist()
    assert back["error"].tolist() == pytest.approx(front["error"].tolist())
    assert back["macs"].tolist() == front["macs"].tolist()
    assert back["group"].tolist() == ["a"] * len(front)
    assert front_of(back)["digest"].tolist() == front["digest"].tolist()


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b""), ("a.csv", b"\xff\xfe\x00"), ("a.parquet", b"PAR1"), ("a.xls", b"x")]
)
def test_read_points_refuses_in_words(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError):
        read_points(tmp_path / name)
    with pytest.raises(UserError, match="that can be read"):
        read_points(tmp_path / "missing.csv")


def test_write_points_refuses_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"\.csv or \.parquet"):
        write_points(pd.DataFrame({"a": [1]}), tmp_path / "a.xlsx")
    with pytest.raises(UserError, match="an existing folder"):
        write_points(pd.DataFrame({"a": [1]}), tmp_path / "no" / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_optuna_there_and_back(make_run):
    frame = load_runs(make_run(trials=[{"seed": 0}, {"seed": 1}]))
    frame.loc[0, "error"] = NAN
    study = to_optuna(frame)
    assert study.user_attrs["objectives"] == ["error", "macs", "params"]
    assert len(study.trials) == len(frame) - 1
    assert {trial.user_attrs["digest"] for trial in study.best_trials} == set(front_of(frame)["digest"])
    back = from_optuna(study, ("error", "macs", "params"), origin="back")
    assert back["user.digest"].tolist() == frame["digest"].tolist()[1:]
    corner = [1.0, 1e7, 1e5]
    columns = ["error", "macs", "params"]
    assert hypervolume(back[columns], corner) == pytest.approx(hypervolume(frame[columns][1:], corner))


def test_from_optuna_takes_parameters_and_refuses_wrong_directions():
    study = optuna.create_study(directions=["maximize", "minimize"])
    distribution = optuna.distributions.FloatDistribution(1, 8)
    for temperature in (1.0, 4.0):
        study.add_trial(
            optuna.trial.create_trial(
                values=[0.9, 5.0], params={"temperature": temperature}, distributions={"temperature": distribution}
            )
        )
    energy = Metric("energy", "Energy", "joules", True, ".3g")
    table = from_optuna(study, ["proxy_accuracy", energy])
    assert table["config.temperature"].tolist() == [1.0, 4.0]
    assert table["error"].tolist() == pytest.approx([0.1, 0.1])
    with pytest.raises(UserError, match="MAXIMIZE"):
        from_optuna(study, ["error", energy])
    with pytest.raises(UserError, match="2, as the study has"):
        from_optuna(study, ["proxy_accuracy"])
    with pytest.raises(UserError, match="at least one row"):
        from_optuna(optuna.create_study(), ["error"])


@pytest.mark.ray
def test_from_result_grid_of_a_real_tune_run(tmp_path, monkeypatch):
    import ray
    from ray import tune

    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # as our own sweeps have it

    def objective(config):
        tune.report({"top1": 90 + config["x"], "macs": 1000 * config["x"]})

    tuner = tune.Tuner(
        tune.with_resources(objective, {"cpu": 1}),
        param_space={"x": tune.grid_search([1, 2])},
        run_config=tune.RunConfig(storage_path=str(tmp_path), name="foreign", verbose=0),
    )
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        grid = tuner.fit()
    finally:
        ray.shutdown()
    table = from_result_grid(grid, {"top1": "proxy_accuracy"}, {"proxy_accuracy": "%"})
    assert sorted(table["config.x"]) == [1, 2]
    assert sorted(table["error"]) == pytest.approx([0.08, 0.09])
    assert len(front_of(table, ("error", "macs"))) == 2
    assert to_tune_points(front_of(table, ("error", "macs")), {"x": "config.x"}) == [{"x": 1}, {"x": 2}]


def test_to_tune_points_refuses_a_missing_column():
    with pytest.raises(UserError, match="got 'b'"):
        to_tune_points(pd.DataFrame({"a": [1]}), {"x": "b"})
