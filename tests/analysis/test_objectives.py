from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from analysis.objectives import best_under, describe, minimised, parse_budget, resolve, within
from analysis.pareto import front_of
from dnad_ray.errors import UserError
from dnad_ray.run_folder.metrics import Metric, metric

NAN, INF = float("nan"), float("inf")
ENERGY = Metric("energy", "Energy", "joules per image", True, ".3g")


def test_resolve_takes_names_and_metrics_of_foreign_columns():
    frame = pd.DataFrame({"error": [0.1], "energy": [2]})
    assert [entry.axis for entry in resolve(frame, ["error", ENERGY])] == [
        "Proxy error (share of validation images)",
        "Energy (joules per image)",
    ]
    assert front_of(frame, ["error", ENERGY]).index.tolist() == [0]


@pytest.mark.parametrize(
    ("objectives", "words"),
    [
        ([], "at least one of error, macs"),
        ("error", "a list of names"),
        (["speed"], "got 'speed'; allowed: one of error, macs"),
        (["latency_p50"], "got 'latency_p50'"),  # known, but no column of this frame
        (["error", "error"], "each of them once"),
        ([Metric("macs", "MACs", "", None, "")], "got 'macs'"),  # without a better side
        (["error", "digest"], "got 'digest'"),
    ],
)
def test_resolve_refuses_in_words(objectives, words):
    with pytest.raises(UserError, match=words):
        resolve(pd.DataFrame({"error": [0.1], "macs": [1], "digest": ["a"]}), objectives)


def test_resolve_refuses_a_column_of_text():
    with pytest.raises(
        UserError, match=r"objective macs: got 'a column of (str|object)'; allowed: a column of numbers"
    ):
        resolve(pd.DataFrame({"macs": ["12M", "3M"]}), ["macs"])


@pytest.mark.parametrize("proxy", ["error", "proxy_accuracy"])
@pytest.mark.parametrize("retrained", ["test_error", "accuracy"])
def test_resolve_never_mixes_proxy_and_retrained_accuracy(proxy, retrained):
    frame = pd.DataFrame({proxy: [0.1], retrained: [0.2], "macs": [1]})
    with pytest.raises(UserError, match="never both in one front"):
        front_of(frame, [proxy, "macs", retrained])


def test_minimised_flips_what_is_maximised_and_keeps_the_frame():
    frame = pd.DataFrame({"proxy_accuracy": [0.9, None], "macs": [1, 2], "params": pd.array([3, None], dtype="Int64")})
    copy = frame.copy()
    np.testing.assert_array_equal(minimised(frame, ["proxy_accuracy", "macs", "params"]), [[-0.9, 1, 3], [NAN, 2, NAN]])
    pd.testing.assert_frame_equal(frame, copy)


def test_within_is_inclusive_knows_the_better_side_and_drops_what_is_missing():
    frame = pd.DataFrame({"macs": [10.0, 20.0, NAN], "proxy_accuracy": [0.5, 0.9, 0.9]})
    assert within(frame, {"macs": 20}).index.tolist() == [0, 1]
    assert within(frame, {"macs": 19.9}).index.tolist() == [0]
    assert within(frame, {"proxy_accuracy": 0.9}).index.tolist() == [1, 2]
    assert within(frame, {}).index.tolist() == [0, 1, 2]
    with pytest.raises(UserError, match="budget of macs"):
        within(frame, {"macs": NAN})


def test_best_under_breaks_ties_by_the_budgets_then_by_order():
    frame = pd.DataFrame({"error": [0.1, 0.1, 0.1, 0.05], "macs": [9, 8, 8, 50], "params": [1, 3, 2, 1]})
    assert best_under(frame, {"macs": 10, "params": 10}) == 2
    assert best_under(frame, {"macs": 10}) == 1
    assert best_under(frame, {}) == 3
    assert best_under(frame, {"error": 0.5}, metric("error")) == 3
    assert best_under(frame, {"macs": 1}) is None
    assert best_under(frame.iloc[:0], {"macs": 1}) is None
    assert best_under(pd.DataFrame({"error": [NAN, 0.3], "macs": [1, 1]}), {"macs": 1}) == 1


def test_parse_budget_takes_suffixes_and_percent():
    assert parse_budget("macs=30M") == ("macs", 30e6)
    assert parse_budget(" proxy_accuracy >= 0.9 ") == ("proxy_accuracy", 0.9)
    assert parse_budget("latency_p50<5") == ("latency_p50", 5.0)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("macs=1m", 1e6), ("macs=1,000,000", 1e6), ("macs=12,345.5k", 12_345_500.0), ("macs=2G", 2e9),
        ("macs=1e6", 1e6), ("macs=1.5E+6", 1.5e6), ("params=.5M", 5e5), ("macs=30 M", 30e6), ("params=5K", 5e3),
        ("error=5%", 0.05), ("error=100%", 1.0), ("error=1", 1.0), ("error=.05", 0.05), ("error=5 %", 0.05),
    ],
)  # fmt: skip
def test_parse_budget_reads_amounts_as_the_box_of_the_report_does(text, limit):
    assert parse_budget(text) == (text.partition("=")[0], pytest.approx(limit, rel=1e-12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("macs=1,5M", "commas between thousands only"),  # 1.5M to one reader, 15M to another
        ("macs=1,00,000", "commas between thousands only"),
        ("macs=1,000,", "commas between thousands only"),
        ("macs=1_000", "NAME=NUMBER"),
        ("macs=0x10", "NAME=NUMBER"),
        ("macs=nan", "NAME=NUMBER"),
        ("macs=1e999", "a finite number"),
        ("macs=5%", "a number without %, which is for shares: macs=5"),
        ("error=5k", "a share, for example error=5% or error=0.05"),
        ("error=5", "a share of at most 1, or a percentage: error=5%"),
        ("error=500%", "a share of at most 1, or a percentage: at most 100%"),
        ("proxy_accuracy=95", "proxy_accuracy=95%"),
    ],
)
def test_parse_budget_says_what_is_wrong_with_an_amount(text, words):
    with pytest.raises(UserError, match="budget") as caught:
        parse_budget(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "macs",
        "macs=",
        "macs=many",
        "speed=3",
        "macs>=3",
        "accuracy<=1",
        "seed=3",
        "macs=inf",
        "macs=-1",
        "error=5",
        "proxy_accuracy>=95",
    ],
)
def test_parse_budget_refuses_in_words(text):
    with pytest.raises(UserError, match="budget"):
        parse_budget(text)


def test_parse_budget_of_an_unknown_metric_names_those_that_are_known():
    with pytest.raises(UserError, match=r"metric of a budget: got 'speed'; allowed: .*macs.*params"):
        parse_budget("speed=3")


def test_describe_uses_the_table():
    assert describe(["params", ENERGY], [1234, math.pi]) == ("Parameters 1,234", "Energy 3.14")
