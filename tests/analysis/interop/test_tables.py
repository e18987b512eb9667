from __future__ import annotations

import math
from decimal import Decimal

import optuna
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.charts.front import plot_front
from analysis.frame import load_runs, setting_of
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
        ({"error": [math.inf, 0.2, -0.1]}, {}, "column error: got -0.1; allowed: 0 to 1"),
        ({"macs": [{"a": 1}]}, {}, "column macs: got"),
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


def test_from_frame_keeps_infinite_errors_which_are_on_no_front():
    taken = from_frame(pd.DataFrame({"error": [math.inf, 0.2, 0.3, NAN], "macs": [1, 3, 2, 1]}))
    assert taken["error"].tolist()[:3] == [math.inf, 0.2, 0.3]
    assert taken["proxy_accuracy"].tolist()[:3] == [-math.inf, 0.8, 0.7]
    assert front_of(taken, ("error", "macs")).index.tolist() == [2, 1]
    nullable = pd.DataFrame({"accuracy": pd.array([0.5, None], dtype="Float64")})
    assert from_frame(nullable)["test_error"].isna().tolist() == [False, True]


def test_from_frame_reads_numbers_as_tables_for_people_have_them():
    taken = from_frame(pd.DataFrame({"macs": ["12", " - ", "3e6", None], "params": ["-"] * 4, "trial": ["-"] * 4}))
    assert taken["macs"].isna().tolist() == [False, True, False, True]
    assert taken["macs"].tolist()[::2] == [12.0, 3e6]
    assert taken["params"].isna().all()
    assert taken["trial"].tolist() == ["-"] * 4  # a name


def test_from_frame_has_lists_of_settings_as_text():
    given = pd.DataFrame(
        {"error": [0.1, 0.2], "config.widths": [[16, 32], [8, 8]], "config.betas": [(0.9, 0.999)] * 2, "run": "a"}
    ).assign(trial=["t0", "t1"])
    taken = from_frame(given)
    assert taken["config.widths"].tolist() == ["[16, 32]", "[8, 8]"]
    assert taken["config.betas"].tolist() == ["[0.9, 0.999]"] * 2
    assert setting_of(taken).tolist() == ["widths [16, 32]", "widths [8, 8]"]
    assert given["config.widths"].tolist() == [[16, 32], [8, 8]]


class OfGrid:
    def __init__(self, **metrics):
        self.metrics = metrics


def test_from_result_grid_takes_configurations_with_lists():
    grid = [OfGrid(error=0.1, config={"layers": [4, 8], "rate": 0.1}), OfGrid(error=0.2, config={"layers": [8, 8]})]
    table = from_result_grid(grid)
    assert table["config.layers"].tolist() == ["[4, 8]", "[8, 8]"]
    assert table["config.rate"].isna().tolist() == [False, True]
    named = setting_of(table.assign(trial=["a", "b"])).tolist()
    assert named == ["layers [4, 8], rate 0.1", "layers [8, 8]"]


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


def test_parquet_of_others_reads_as_the_same_csv_does(tmp_path):
    times = pd.to_datetime(["2026-01-01", "2026-01-02"])
    table = pa.table(
        {
            "number": pa.array([0, 1]),
            "datetime_start": pa.array(times),
            "duration": pa.array([1, 2], pa.duration("s")),
            "day": pa.array([20, 21], pa.date32()),
            "parts": pa.array([[1], [2, 3]]),
            "error": pa.array([Decimal("0.25"), None], pa.decimal128(5, 2)),
            "macs": pa.array([1000, 2000], pa.int64()).dictionary_encode(),
            "params": pa.array([Decimal("10"), Decimal("20")], pa.decimal128(38, 0)),
            "group": pa.array(["a", "b"], pa.large_string()).dictionary_encode(),
            "kind": pa.array(["x", "x"]).dictionary_encode(),
            "params_lr": pa.array([0.5, 0.25], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "study.parquet")
    table.drop_columns("parts").to_pandas().to_csv(tmp_path / "study.csv", index=False)
    ours, theirs = read_points(tmp_path / "study.parquet"), read_points(tmp_path / "study.csv")
    assert ours["error"].tolist()[0] == 0.25
    assert ours[["macs", "params"]].to_dict("list") == {"macs": [1000, 2000], "params": [10.0, 20.0]}
    assert ours[["group", "kind"]].to_dict("list") == {"group": ["a", "b"], "kind": ["x", "x"]}
    assert not {"datetime_start", "duration", "day", "parts"} & set(ours)
    for name in ("number", "error", "macs", "params", "params_lr", "group", "kind"):
        assert ours[name].isna().tolist() == theirs[name].isna().tolist()
        assert ours[name].dropna().tolist() == theirs[name].dropna().tolist(), name
    with pytest.raises(UserError, match="columns: got 'day'; allowed: one of number, error"):
        read_points(tmp_path / "study.parquet", {"day": "epoch"})


def test_optunas_own_table_comes_through_parquet(tmp_path):
    study = optuna.create_study(direction="minimize", sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("lr", 0, 1) ** 2, n_trials=3)
    study.trials_dataframe().to_parquet(tmp_path / "trials.parquet")
    table = read_points(tmp_path / "trials.parquet", {"value": "error"})
    assert table["error"].tolist() == [trial.value for trial in study.trials]
    assert table["params_lr"].tolist() == [trial.params["lr"] for trial in study.trials]


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


def test_to_optuna_has_settings_as_parameters_that_importances_and_samplers_use(make_run):
    grid = [{"seed": seed, "shrink.rate": rate, "train.batch_size": 32} for seed in (0, 1) for rate in (0.05, 0.1)]
    frame = load_runs(make_run(trials=grid))
    study = to_optuna(frame, ("error", "macs"))
    assert [trial.params for trial in study.trials] == [{"shrink.rate": rate} for rate in frame["shrink_rate"]]
    assert study.trials[0].distributions == {"shrink.rate": optuna.distributions.FloatDistribution(0.05, 0.1)}
    evaluator = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(n_trees=4, seed=0)
    importances = optuna.importance.get_param_importances(
        study, evaluator=evaluator, target=lambda trial: trial.values[0]
    )
    assert importances == {"shrink.rate": 1.0}  # the only parameter has all of it
    chart = optuna.visualization.plot_parallel_coordinate(
        study, target=lambda trial: trial.values[0], target_name="Error"
    )
    assert "shrink.rate" in chart.to_json()  # without a parameter it would be empty
    study.optimize(lambda trial: (trial.suggest_float("shrink.rate", 0.01, 0.2), 1.0), n_trials=1)
    assert len(study.trials) == len(frame) + 1
    back = from_optuna(to_optuna(frame, ("error", "macs")), ("error", "macs"))
    assert back["config.shrink.rate"].tolist() == frame["shrink_rate"].tolist()


def test_to_optuna_has_the_distributions_of_the_sweep(make_run):
    frame = load_runs(make_run(trials=[{"seed": seed} for seed in (0, 1)], epochs=1)).assign(
        **{
            "config.shrink.rate": [0.05, 0.1],
            "config.sweep.ranges.shrink.rate.loguniform": "[0.02, 0.2]",
            "config.space.num_nodes": [2, 3],
            "config.sweep.ranges.space.num_nodes.integer": "[1, 4]",
            "config.train.betas": ["[0.5, 0.999]", "[0.9, 0.999]"],
            "config.sweep.ranges.train.betas.choice": "[[0.9, 0.999], [0.5, 0.999], [0.1, 0.2]]",
            "config.distill.temperature": [4.0, NAN],
            "config.train.learning_rate": [1, 2],
        }
    )
    kinds = optuna.distributions
    study = to_optuna(frame)
    assert study.trials[0].distributions == {
        "shrink.rate": kinds.FloatDistribution(0.02, 0.2, log=True),
        "space.num_nodes": kinds.IntDistribution(1, 4),
        "train.betas": kinds.CategoricalDistribution(["[0.9, 0.999]", "[0.5, 0.999]", "[0.1, 0.2]"]),
        "train.learning_rate": kinds.IntDistribution(1, 2),
    }
    assert study.trials[1].params == {
        "shrink.rate": 0.1, "space.num_nodes": 3, "train.betas": "[0.9, 0.999]", "train.learning_rate": 2,
    }  # fmt: skip
    both = to_optuna(frame.assign(**{"config.distill.temperature": [4.0, 8.0]}))
    assert both.trials[0].params["distill.temperature"] == 4.0
    odd = to_optuna(frame.assign(**{"config.sweep.ranges.shrink.rate.loguniform": "[oops"}))
    assert odd.trials[0].distributions["shrink.rate"] == kinds.FloatDistribution(0.05, 0.1)


def test_to_optuna_without_a_configuration_has_the_settings_of_snapshots(make_run):
    grid = [{"seed": 0, "distill.kind": kind} for kind in ("none", "logits")]
    study = to_optuna(load_runs(make_run(trials=grid, epochs=1), config=False))
    assert [trial.params for trial in study.trials] == [{"kd_kind": "none"}, {"kd_kind": "logits"}]
    assert to_optuna(pd.DataFrame({"error": [0.1, 0.2], "macs": [1, 2], "params": [1, 2]})).trials[0].params == {}


def test_from_optuna_leaves_out_infeasible_trials_and_keeps_infinite_ones():
    study = optuna.create_study(directions=["minimize"] * 2, sampler=optuna.samplers.NSGAIISampler(seed=0))

    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        trial.set_constraint("megabytes", 100 * x - 50)
        return 1 - x, 1e6 * x * x

    study.optimize(objective, n_trials=30)
    table = from_optuna(study, ("error", "macs"))
    feasible = [trial for trial in study.trials if trial.params["x"] <= 0.5]
    assert 0 < len(feasible) < 30
    assert table["trial"].tolist() == [str(trial.number) for trial in feasible]
    best = {str(trial.number) for trial in study.best_trials}
    assert set(front_of(table, ("error", "macs"))["trial"]) == best
    study.add_trial(optuna.trial.create_trial(values=[math.inf, 1.0]))
    more = from_optuna(study, ("error", "macs"))
    assert len(more) == len(feasible) + 1
    assert set(front_of(more, ("error", "macs"))["trial"]) == best


def test_from_optuna_of_version_4_reads_constraints_of_the_system():
    class Trial:
        def __init__(self, number, constraints):
            self.number, self.values, self.params, self.user_attrs = number, [0.5], {}, {}
            self.state, self.system_attrs = optuna.trial.TrialState.COMPLETE, {"constraints": constraints}

    class Study:
        directions = (optuna.study.StudyDirection.MINIMIZE,)
        trials = (Trial(0, [-1.0, 0.0]), Trial(1, [-1.0, 0.1]), Trial(2, []))

    assert from_optuna(Study(), ["error"])["trial"].tolist() == ["0", "2"]
    Study.trials = Study.trials[1:2]
    with pytest.raises(UserError, match="no trial that is complete and feasible"):
        from_optuna(Study(), ["error"])


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
