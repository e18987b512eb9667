from __future__ import annotations

import pandas as pd
import pytest

from analysis.charts.weights import _weights_info, plot_weights
from analysis.frame import WEIGHT_COLUMNS, load_weights
from dnad_ray.errors import UserError


def frame_of(*rows):
    return pd.DataFrame([("r", *row) for row in rows], columns=list(WEIGHT_COLUMNS))


def test_load_weights_has_a_row_per_epoch_cell_and_operation(make_run):
    table = load_weights(make_run(trials=[{"seed": 0}, {"seed": 1}], epochs=2))
    assert tuple(table.columns) == WEIGHT_COLUMNS
    assert len(table) == 2 * 2 * 2 * 2
    assert table.groupby(["trial", "epoch", "cell"])["weight"].sum().eq(1).all()


def test_weights_info_counts_what_is_gone_as_nothing_and_what_ended_not_at_all():
    table = frame_of(
        ("a", 1, 1, 0, "conv", 0.5), ("a", 1, 1, 0, "skip", 0.5), ("a", 2, 2, 0, "conv", 1.0),
        ("b", 1, 1, 0, "conv", 0.3), ("b", 1, 1, 0, "skip", 0.7),
    )  # fmt: skip
    conv, skip = _weights_info(table, None).courses
    assert (conv.name, conv.x, conv.mean) == ("conv", (1.0, 2.0), (0.4, 1.0))
    assert (skip.mean, skip.low, skip.high) == ((0.6, 0.0), (0.5, 0.0), (0.7, 0.0))


def test_weights_info_of_one_cell_and_of_none(make_run):
    table = load_weights(make_run())
    assert [course.mean[0] for course in _weights_info(table, 0).courses] == [0.75, 0.25]
    with pytest.raises(UserError, match="0 to 1"):
        plot_weights(table, 7)
    assert not plot_weights(table.iloc[:0]).data
