from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from analysis.frame import RunWarning, load_runs
from analysis.objectives import within
from analysis.pareto import front_of
from dnad_ray.cli.front import front
from dnad_ray.commands.run import open_run
from dnad_ray.errors import UserError
from dnad_ray.run_folder.records import Measurement
from dnad_ray.run_folder.writing import write_measurement, write_result
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
    with pytest.raises(UserError, match="NAME=NUMBER with k, M, G, % or ms"):
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


def told(*arguments):
    with pytest.raises(UserError) as caught:
        CliRunner().invoke(front, list(map(str, arguments)), catch_exceptions=False)
    return str(caught.value)


def test_front_command_weighs_latency_and_accuracy_after_training(make_run, retrained):
    folder = make_run(epochs=4)
    frame = load_runs(folder)
    assert told(folder, "--objectives", "error,latency_p50") == (
        "--objectives: got 'latency_p50'; allowed: metrics that the runs have recorded; `dnad-ray measure` records it"
    )
    assert told(folder, "--under", "test_error=5%").endswith("; `dnad-ray retrain` records it")
    latencies = dict(zip(frame["digest"], (4.0, 3.0, 2.0, 1.0), strict=True))
    for digest, latency in latencies.items():
        for threads in (1, 2):
            write_measurement(
                folder,
                Measurement(
                    run="demo", digest=digest, model="genotype", init_channels=8, width=1.0, image_size=8,
                    batch_size=1, device="cpu", device_name="a", threads=threads, repeats=50, peak_memory=1000,
                    latency_p50=latency / threads, latency_p90=latency, latency_p99=latency,
                ),
            )  # fmt: skip
    for row, accuracy in ((0, 0.95), (1, 0.9), (2, 0.92)):
        write_result(folder, retrained(frame.iloc[row], accuracy=accuracy))
    # Of the trained networks, the second is slower and worse than the third; the fourth was not trained.
    asked = ["--objectives", "test_error,latency_p50", "--where", "threads=2", "--json"]
    result = CliRunner().invoke(front, [str(folder), *asked], catch_exceptions=False)
    found = [(row["digest"], row["latency_p50"]) for row in json.loads(result.output)]
    assert found == [(frame["digest"][2], 1.0), (frame["digest"][0], 2.0)]
    assert "several threads" in told(folder, "--objectives", "error,latency_p50")
    table = CliRunner().invoke(front, [str(folder), *asked[:-1], "--under", "latency_p50=1.5"], catch_exceptions=False)
    assert [line.split()[0] for line in table.output.splitlines()[2:] if line.strip()] == ["8.00%"]
    assert "Latency, median" in table.output
    assert told(folder, "--where", "threads") == "--where: got 'threads'; allowed: NAME=VALUE, for example threads=1"
    in_python = open_run(folder).front(("test_error", "latency_p50"), where={"threads": 2})
    assert in_python["digest"].tolist() == [digest for digest, _ in found]
    best = open_run(folder).best_under("accuracy", macs="1G")
    assert best is not None
    assert best["digest"] == frame["digest"][0]


def test_front_command_shows_trained_networks_that_no_search_recorded(make_run, retrained):
    row = load_runs(make_run()).iloc[0].replace("demo", "trained")
    folder = make_run("trained", trials=[])
    assert open_run(folder).front().empty
    for width, accuracy, macs in ((4, 0.7, 100), (8, 0.9, 200), (6, 0.6, 150)):
        values = {"origin": "plain", "init_channels": width, "macs": macs, "params": macs, "accuracy": accuracy}
        write_result(folder, retrained(row, job=f"width-{width}", **values))
    write_result(folder, retrained(row, job="other", origin="random", accuracy=1.0, macs=1, init_channels=3))
    # The third is beaten by the first; the one that only stands beside them is left out.
    result = CliRunner().invoke(front, [str(folder), "--json"], catch_exceptions=False)
    assert [(found["macs"], found["test_error"]) for found in json.loads(result.output)] == [
        (100, pytest.approx(0.3)),
        (200, pytest.approx(0.1)),
    ]
    table = CliRunner().invoke(front, [str(folder), "--under", "macs=150"], catch_exceptions=False).output
    assert "Test error" in table
    assert "Pareto front: 1 network " in table
    best = open_run(folder).best_under("test_error", macs=150)
    assert best is not None
    assert best["macs"] == 100
    write_result(folder, retrained(row, job="again", origin="plain", protocol="another", accuracy=0.5, init_channels=5))
    assert told(folder) == (
        "protocol: got None; allowed: one of 0123456789abcdef, another: networks that were trained alike"
    )


def test_front_command_shows_the_runs_beside_a_damaged_one(make_run):
    good, damaged = make_run("good"), make_run("damaged")
    content = (damaged / "run.json").read_bytes()
    (damaged / "run.json").write_bytes(bytes([content[0] ^ 0x80]) + content[1:])
    with pytest.warns(RunWarning, match=r"a run is left out: .*damaged.*run\.json cannot be read"):
        result = CliRunner().invoke(front, [str(good), str(damaged), "--json"], catch_exceptions=False)
    assert {row["run_path"] for row in json.loads(result.output)} == {str(good)}
    assert "run.json cannot be read" in told(damaged)
    assert "an existing run folder" in told(good, good.parent / "missing")
