from __future__ import annotations

import pytest

from analysis.charts.front import _front_info, plot_front
from analysis.charts.template import COLOURS
from analysis.frame import load_runs
from dnad_ray.config.run import RunConfig, config_to_dict
from dnad_ray.errors import UserError
from dnad_ray.run_folder.writing import create_run, write_snapshot


@pytest.fixture
def frame(tmp_path, dense, snapshot):
    """Two trials; t0 at step 30 is dominated, t1 at step 10 is on the front by its parameters only."""
    folder = create_run(tmp_path / "demo", config_to_dict(RunConfig()), "0.0.0")
    rows = [
        ("t0", 10, 0.1, "pruned", 0.875, 300, 30),
        ("t0", 20, 0.1, "pareto", 0.75, 200, 20),
        ("t0", 30, 0.1, "final", 0.75, 250, 25),
        ("t1", 10, 0.2, "final", 0.75, 250, 10),
    ]
    for number, (trial, step, rate, kind, accuracy, macs, params) in enumerate(rows, 1):
        genotype = dense(num_cells=number, num_nodes=1)
        values = {"proxy_accuracy": accuracy, "macs": macs, "params": params}
        write_snapshot(
            folder, snapshot(genotype, trial=trial, step=step, shrink_rate=rate, kind=kind, **values), genotype
        )
    return load_runs(folder)


def test_front_info_is_what_is_drawn(frame):
    info = _front_info(frame, ("error", "macs", "params"), "setting")
    assert (info.x.name, info.y.name, info.log_x, info.line_shape) == ("macs", "error", True, "hv")
    assert info.line == ((200, 0.25), (300, 0.125))
    drawn = [(part.name, part.on_front, part.x, part.y, part.symbols, part.rows) for part in info.points]
    assert drawn == [
        ("Shrink rate 0.1", False, (250,), (0.25,), ("square",), (2,)),
        ("Shrink rate 0.1", True, (300, 200), (0.125, 0.25), ("circle", "diamond"), (0, 1)),
        ("Shrink rate 0.2", True, (250,), (0.25,), ("square",), (3,)),
    ]
    assert info.colours == {"Shrink rate 0.1": COLOURS[0], "Shrink rate 0.2": COLOURS[1]}
    assert info.kinds == ("pruned", "pareto", "final")


def test_front_info_of_two_objectives_drops_what_only_parameters_saved(frame):
    info = _front_info(frame, ("error", "macs"), "setting")
    assert [part.rows for part in info.points if part.on_front] == [(0, 1)]


def test_front_info_hover_tells_numbers_and_origin(frame):
    hover = _front_info(frame, ("error", "macs"), "run").points[-1].hovers[0]
    assert hover == (
        "<b>Proxy error 12.50% | MACs 300</b><br>Parameters 30 | Operations 6<br>demo / t0<br>"
        f"Seed 0 | Epoch 1 | Step 10 | pruned<br>Shrink rate 0.1 | KD none<br>{frame['digest'][0]}"
    )


@pytest.mark.parametrize(
    ("colour", "names"),
    [("run", ["demo"]), ("trial", ["demo / t0", "demo / t1"]), ("setting", ["Shrink rate 0.1", "Shrink rate 0.2"])],
)
def test_front_info_colours_tell_apart_what_was_asked_for(frame, colour, names):
    assert list(_front_info(frame, ("error", "macs"), colour).colours) == names


def test_front_info_names_from_files_are_not_tags(frame):
    hostile = frame.assign(trial="<b>t</b>")
    assert "demo / &lt;b&gt;t&lt;/b&gt;" in _front_info(hostile, ("error", "macs"), "run").points[0].hovers[0]


def test_front_info_more_is_better_and_no_logarithm_of_zero(frame):
    info = _front_info(frame, ("macs", "proxy_accuracy"), "run")
    assert info.line_shape == "vh"
    assert not info.log_x
    assert not _front_info(frame.assign(macs=[0, 1, 2, 3]), ("error", "macs"), "run").log_x


def test_front_info_of_retrained_networks_has_their_spread_over_seeds(frame):
    networks = frame.assign(test_error=frame["error"], accuracy_std=0.01, run="search")
    networks.loc[networks.index[0], "accuracy_std"] = float("nan")  # one seed
    info = _front_info(networks, ("test_error", "macs", "params"), "run")
    pairs = sorted(spread for points in info.points for spread in points.spreads)
    assert pairs == [(0.0, 0.0)] + [(0.01, 0.01)] * (len(frame) - 1)
    bars = [
        trace.error_y.array for trace in plot_front(networks, ("test_error", "macs"), "run").data if trace.customdata
    ]
    assert sum(len(bar) for bar in bars) == len(frame)
    assert all(points.spreads == () for points in _front_info(networks, ("error", "macs"), "run").points)
    # One seed each: the interval of 13 errors in 100 images is 7.8 to 21.0 % (scipy says the same).
    single = networks.assign(accuracy_std=float("nan"), test_error=0.13, num_images=100)
    spreads = {s for points in _front_info(single, ("test_error", "macs"), "run").points for s in points.spreads}
    assert [(round(below, 3), round(above, 3)) for below, above in spreads] == [(0.052, 0.08)]
    better = single.assign(accuracy=0.87)
    spreads = {s for points in _front_info(better, ("accuracy", "macs"), "run").points for s in points.spreads}
    assert [(round(below, 3), round(above, 3)) for below, above in spreads] == [(0.08, 0.052)]


def test_front_info_refuses_one_objective_and_unknown_colours(frame):
    with pytest.raises(UserError, match="at least two"):
        _front_info(frame, ["error"], "run")
    with pytest.raises(UserError, match="setting, run or trial"):
        _front_info(frame, ("error", "macs"), "blue")


def test_plot_front_draws_every_snapshot_once(frame):
    figure = plot_front(frame)
    rows = [row for trace in figure.data if trace.customdata is not None for row in trace.customdata]
    assert sorted(rows) == [0, 1, 2, 3]
    assert figure.layout.xaxis.type == "log"
    legend = [trace.name for trace in figure.data if trace.showlegend is not False]
    assert legend == ["Shrink rate 0.1", "Shrink rate 0.2", "front", "pruned", "pareto", "final"]


def test_plot_front_of_nothing_is_empty(frame):
    assert not plot_front(frame.iloc[:0]).data
