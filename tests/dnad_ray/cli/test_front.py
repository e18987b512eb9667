from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from analysis.frame import load_runs
from analysis.objectives import within
from analysis.pareto import front_of
from dnad_ray.cli.front import front
from dnad_ray.errors import UserError
from dnad_ray.storage.files import write_json


def test_front_command_keeps_budgets(make_run):
    folder = make_run(trials=[{"seed": 0}, {"seed": 1}], epochs=5)
    frame = load_runs(folder)
    limit = int(front_of(frame)["macs"].iloc[0])  # the cheapest network of the front, and nothing else of it
    result = CliRunner().invoke(front, [str(folder), "--under", f"macs={limit}", "--under", "error<=50%", "--json"])
    assert result.exit_code == 0
    found = [row["digest"] for row in json.loads(result.output)]
    assert found == front_of(within(frame, {"macs": limit, "error": 0.5}))["digest"].tolist()
    assert 0 < len(found) < len(front_of(frame))


def test_front_command_refuses_a_budget_in_words(make_run):
    with pytest.raises(UserError, match="NAME=NUMBER with k, M, G or %"):
        CliRunner().invoke(front, [str(make_run()), "--under", "macs=many"], catch_exceptions=False)


def test_front_command_takes_a_recorded_score_as_objective(make_run):
    folder = make_run()
    with pytest.raises(UserError, match=r"^--objectives: got 'score'; allowed: metrics that the runs have recorded$"):
        CliRunner().invoke(front, [str(folder), "--objectives", "score,macs"], catch_exceptions=False)
    for number, file in enumerate(sorted(folder.glob("trials/*/snapshots/*.json"))):
        write_json(file, {**json.loads(file.read_text()), "score": float(number), "macs": 10})
    result = CliRunner().invoke(front, [str(folder), "--objectives", "score,macs", "--json"], catch_exceptions=False)
    (best,) = json.loads(result.output)
    assert best["score"] == number > 0  # of equal cost the highest score


def test_front_command_says_when_no_network_keeps_the_budgets(make_run):
    folder = make_run()
    least = load_runs(folder)["macs"].min()
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(front, [str(folder), "--under", f"macs={least - 1}"], catch_exceptions=False)
    assert str(caught.value) == (
        f"--under: got 'macs={least - 1}'; allowed: what a network keeps; the best values are macs {least:,}"
    )
    result = CliRunner().invoke(front, [str(folder), "--under", f"macs={least - 1}", "--json"])
    assert (result.exit_code, json.loads(result.output)) == (0, [])
