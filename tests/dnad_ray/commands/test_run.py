"""The Python API: the options of the command line as keywords, its errors, and runs that can be stopped and opened."""

from __future__ import annotations

import inspect
import os
import re
import signal
import subprocess
import sys
import threading
import time

import click
import pytest

import dnad_ray as dr
from dnad_ray import cli
from dnad_ray.commands.keywords import _KINDS
from dnad_ray.commands.outcome import Outcome
from dnad_ray.config.run import config_to_dict
from dnad_ray.run_folder import reading
from dnad_ray.run_folder.checkpoints import load_newest
from dnad_ray.run_folder.writing import create_run, write_status
from dnad_ray.search.loop import SearchState, search

QUICK = {"recipe": "quick", "epochs": 1, "set": {"device": "cpu"}, "no_ray": True, "quiet": True}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A finished search. Read only."""
    return dr.run_search(tiny(), out=tmp_path_factory.mktemp("api") / "demo", quiet=True)


def test_import_of_the_package_loads_nothing_heavy():
    heavy = {"torch", "ray", "pandas", "plotly", "pydantic", "click", "numpy", "pyarrow", "rich"}
    program = f"import sys, dnad_ray; dir(dnad_ray); print(sorted({heavy!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_public_name_is_there_and_others_are_not():
    assert set(dr.__all__) <= set(dir(dr))
    assert all(getattr(dr, name) is not None for name in dr.__all__)
    with pytest.raises(AttributeError, match="'dnad_ray' has no attribute 'run_serach'"):
        _ = dr.run_serach


FUNCTIONS = {
    "search": dr.run_search,
    "sweep": dr.run_sweep,
    "teacher": dr.make_teacher,
    "retrain": dr.run_retrain,
    "baselines": dr.Run.baselines,
    "measure": dr.Run.measure,
    "export": dr.Run.export,
}
NOT_OPTIONS = {"self", "to_continue"}
"""Keywords that no option has: what a caller of its own tells people to say is the command itself on a command line."""


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_option_is_a_keyword_with_its_default_and_every_keyword_an_option(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    options = {one.name: one for one in cli.cli.commands[name].params if isinstance(one, click.Option)}
    arguments = {one.name for one in cli.cli.commands[name].params if isinstance(one, click.Argument)}
    assert set(parameters) - NOT_OPTIONS - arguments == set(options)
    spelled = {key: next(word for word in option.opts if word.startswith("--")) for key, option in options.items()}
    assert spelled == {key: f"--{key.replace('_', '-')}" for key in options}
    for key, option in options.items():
        ours, theirs = parameters[key].default, None if option.required else option.to_info_dict()["default"]
        if option.multiple:
            assert ours == (), key
        elif isinstance(ours, tuple):
            assert ",".join(ours) == theirs, key
        elif not option.required:
            assert (ours or None) == (theirs or None), key


def spelled(text):
    """Options as keywords, by hand."""
    for option in ("more-seeds", "max-macs", "max-trials", "time-budget", "image-size", "max-params"):
        text = text.replace(f"--{option}", option.replace("-", "_"))
    return re.sub(r"--([a-z])", r"\1", text)


MISTAKES = [
    ("search", ["smoke", "--trials", "3"], lambda: dr.run_search("smoke", trials=3)),
    ("search", ["nope"], lambda: dr.run_search("nope")),
    ("search", ["smoke", "--time-budget", "soon"], lambda: dr.run_search("smoke", time_budget="soon")),
    ("search", ["smoke", "--set", "train.epoch=3"], lambda: dr.run_search("smoke", set={"train.epoch": 3})),
    ("search", ["smoke", "--set", "train.epochs=0"], lambda: dr.run_search("smoke", set=["train.epochs=0"])),
    ("search", ["smoke", "--epochs", "0"], lambda: dr.run_search("smoke", epochs=0)),
    ("search", ["smoke", "--data", "/nonexistent"], lambda: dr.run_search("smoke", data="/nonexistent")),
    ("search", ["smoke", "--space", "x.txt"], lambda: dr.run_search("smoke", space="x.txt")),
    ("search", ["smoke", "--quiet", "--json"], lambda: dr.run_search("smoke", quiet=True, json=True)),
    ("search", ["smoke", "--out", "none", "--resume"], lambda: dr.run_search("smoke", out="none", resume=True)),
    ("search", ["smoke", "--out", "ftp://a:b@c/d"], lambda: dr.run_search("smoke", out="ftp://a:b@c/d")),
    ("sweep", ["smoke", "--more-seeds", "2"], lambda: dr.run_sweep("smoke", more_seeds=2)),
    ("sweep", ["smoke", "--max-trials", "0"], lambda: dr.run_sweep("smoke", max_trials=0)),
    ("retrain", ["RUN", "--seeds", "0"], lambda: dr.open_run("demo").retrain(seeds=0)),
    ("retrain", ["RUN", "--max-macs", "0"], lambda: dr.open_run("demo").retrain(max_macs=0)),
    ("retrain", ["RUN", "--recipe", "x"], lambda: dr.open_run("demo").retrain(recipe="x")),
    ("retrain", ["RUN", "--digest", "zz"], lambda: dr.open_run("demo").retrain(digest="zz")),
    ("retrain", ["none.json"], lambda: dr.run_retrain("none.json")),
    ("baselines", ["RUN", "--kinds", "vgg"], lambda: dr.open_run("demo").baselines(kinds=["vgg"])),
    ("baselines", ["RUN", "--networks", "0"], lambda: dr.open_run("demo").baselines(networks=0)),
    ("measure", ["RUN", "--device", "tpu"], lambda: dr.open_run("demo").measure(device="tpu")),
    ("measure", ["RUN", "--batch", "0"], lambda: dr.open_run("demo").measure(batch=0)),
    ("export", ["RUN", "--format", "x"], lambda: dr.open_run("demo").export(format="x")),
    ("export", ["RUN"], lambda: dr.open_run("demo").export()),
    ("export", ["RUN", "--under", "beauty=3"], lambda: dr.open_run("demo").export(under={"beauty": 3})),
]


@pytest.mark.parametrize(
    ("name", "words", "call"), MISTAKES, ids=lambda value: "-".join(value) if isinstance(value, list) else None
)
def test_mistake_is_refused_in_the_words_of_the_command_line(name, words, call, command, run, tmp_path):
    (tmp_path / "demo").symlink_to(run.path)
    code, _, err = command(name, *(str(run.path) if word == "RUN" else word for word in words))
    with pytest.raises(dr.UserError) as refused:
        call()
    assert code == 2
    theirs = spelled(err.removeprefix("dnad-ray: error: ").strip())
    ours = " ".join(str(refused.value).split())
    for argument in ("CONFIG", "SOURCE", "RUN"):
        theirs = re.sub(rf"^{argument}:", f"{argument.lower()}:", theirs)
    assert ours == theirs
    assert "--" not in ours
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_search_of_a_configuration_finishes_and_is_what_the_loop_finds(run, tiny, timeless):
    from dnad_ray.data.loading import load_data

    assert (run.outcome.state, run.outcome.left, run.name) == ("finished", (), "demo")
    assert list(run.outcome.front["digest"]) == list(run.front()["digest"])
    expected = search(SearchState.start(tiny(), load_data(tiny().data), run="demo", trial="t00"))
    assert timeless(run.contents().snapshots) == timeless(expected)


def test_search_prints_nothing_where_it_is_quiet(tiny, tmp_path, capfd):
    dr.run_search(config_to_dict(tiny({"train.epochs": 2})), out=tmp_path / "demo", quiet=True)
    assert capfd.readouterr() == ("", "")


def test_front_and_best_of_an_opened_run(run):
    opened = dr.open_run(str(run.path))
    assert opened == run
    assert opened.outcome is None
    frame = opened.snapshots()
    front = opened.front(objectives=("error", "macs"))
    for _, row in front.iterrows():
        beaten = (frame["error"] <= row["error"]) & (frame["macs"] <= row["macs"])
        assert not (beaten & ((frame["error"] < row["error"]) | (frame["macs"] < row["macs"]))).any()
    middle = float(frame["macs"].median())
    best = opened.best_under(macs=middle)
    assert best["error"] == frame[frame["macs"] <= middle]["error"].min()
    assert opened.best_under(macs="1k") is None
    assert (opened.front(under={"macs": middle})["macs"] <= middle).all()
    with pytest.raises(dr.UserError, match="budget: got 'macs=many'"):
        opened.best_under(macs="many")


def test_open_run_refuses_what_is_no_run(tmp_path):
    with pytest.raises(dr.UserError, match=r"^run: got .*run_search"):
        dr.open_run(tmp_path)


def test_open_run_refuses_a_marker_that_cannot_be_read(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(dr.UserError, match=r"whose run\.json cannot be read"):
        dr.open_run(tmp_path)


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ({"seeds": "2"}, "seeds: got '2'; allowed: a whole number"),
        ({"seeds": True}, "seeds: got True; allowed: a whole number"),
        ({"networks": 1.5}, "networks: got 1.5; allowed: a whole number, or None"),
        ({"max_macs": 1.5}, "max_macs: got 1.5; allowed: a whole number, or a text such as '30M', or None"),
        (
            {"max_macs": "30X"},
            "max_macs: got '30X'; allowed: a whole number, also with k, M or G behind it, such as 30M",
        ),
        ({"max_params": "0k"}, "max_params: got 0; allowed: at least 1"),
        ({"cpus": "x"}, "cpus: got 'x'; allowed: a number, or None"),
        ({"no_ray": 1}, "no_ray: got 1; allowed: True or False"),
        ({"seeds": 10**20}, "seeds: got 100000000000000000000; allowed: 1 to 10,000"),
    ],
)
def test_numbers_of_another_type_or_size_are_refused(run, words, allowed):
    with pytest.raises(dr.UserError) as caught:
        run.retrain(recipe="quick", **words)
    assert str(caught.value) == allowed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda run: dr.open_run(None), "run: got None; allowed: a path or URL"),
        (lambda run: dr.load_model(3), "model: got 3; allowed: a path"),
        (lambda run: run.front(objectives=3), "objectives: got 3; allowed: a text, or several in a list"),
        (lambda run: run.front(under=5), r"under: got 5; allowed: a dictionary such as \{'macs': '30M'\}, or texts"),
        (lambda run: run.front(under={"macs": None}), r"under: got \{'macs': None\}; allowed: a dictionary such as"),
        (lambda run: run.best_under(macs=True), "macs: got True; allowed: a number, or a text such as '30M'"),
        (lambda run: run.export(under=3), "under: got 3; allowed: a dictionary"),
        (lambda run: run.export(out=3), "out: got 3; allowed: a path or URL, or None"),
        (lambda run: run.report(3), "out: got 3; allowed: a path or URL, or None"),
        (lambda run: run.retrain(set=3), "set: got 3; allowed: a dictionary such as"),
        (lambda run: run.retrain(digest=5), "digest: got 5; allowed: a text, or several in a list"),
        (lambda run: run.baselines(kinds=["random", 3]), r"kinds: got \['random', 3\]; allowed: a text, or several"),
        (lambda run: dr.run_search(3), "config: got 3; allowed: the name of a recipe, the path of a YAML file"),
        (lambda run: dr.run_search({"train": 3}), "config: train: got 3; allowed: "),
        (lambda run: dr.run_search("smoke", set={3: 4}), r"set: got \{3: 4\}; allowed: a dictionary such as"),
        (lambda run: dr.run_search("smoke", time_budget=[1]), r"time_budget: got \[1\]; allowed: seconds, a text such"),
        (lambda run: dr.run_sweep("smoke", out=3), "out: got 3; allowed: a path or URL, or None"),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(run, call, message):
    with pytest.raises(dr.UserError, match=f"^{message}"):
        call(run)


def test_types_of_all_keywords_are_checked():
    functions = (dr.open_run, dr.load_model, dr.make_teacher, dr.run_retrain, dr.run_search, dr.run_sweep)
    methods = (dr.Run.front, dr.Run.best_under, dr.Run.export, dr.Run.report, dr.Run.retrain)
    methods += (dr.Run.baselines, dr.Run.benchmark, dr.Run.measure)
    for function in (*functions, *methods):
        for name, parameter in inspect.signature(function).parameters.items():
            if name != "self":
                assert str(parameter.annotation).removesuffix(" | None") in _KINDS, (function.__name__, name)


def test_front_of_one_objective_is_its_best_network(run):
    snapshots = run.snapshots()
    assert list(run.front("error")["error"]) == list(run.front(("error",))["error"]) == [snapshots["error"].min()]


def test_run_of_failures_is_opened_while_it_goes_on(tiny, tmp_path):
    folder = create_run(tmp_path / "demo", config_to_dict(tiny()), "0.1")
    write_status(folder, "t00", "running")
    opened = dr.open_run(folder)
    assert len(opened.front()) == 0
    assert opened.contents().status["t00"]["state"] == "running"


def test_retrain_export_and_predict(run, tmp_path, pictures):
    import shutil

    mine = dr.open_run(shutil.copytree(run.path, tmp_path / "demo"))
    trained = mine.retrain(networks=2, **QUICK)
    assert trained.outcome.state == "finished"
    records = mine.retrained()
    assert sorted(trained.outcome.front["job"]) == sorted(records["job"])
    small = int(records["macs"].min())
    exported = mine.export(tmp_path / "net.safetensors", under={"macs": small})
    assert exported.digest == records.loc[records["macs"].idxmin(), "digest"]
    files = sorted(pictures.rglob("*.png"))[:3]
    said = dr.load_model(exported.files[0]).predict(files, top=2)
    assert [prediction.file for prediction in said] == [str(file) for file in files]
    assert all(len(prediction.classes) == 2 for prediction in said)
    with pytest.raises(dr.UserError, match=r"^top: got 0; allowed: at least 1"):
        dr.load_model(exported.files[0]).predict(files[0], top=0)
    with pytest.raises(dr.UserError, match="under: got 'macs=1'"):
        mine.export(under={"macs": 1})
    with pytest.raises(dr.UserError, match=r"^model: got"):
        dr.load_model(tmp_path / "none.onnx")


def test_search_that_diverges_raises_and_leaves_its_results(tiny, tmp_path):
    with pytest.raises(dr.DnadRayError, match="1 of 1 trials stopped early"):
        dr.run_search(tiny({"train.learning_rate": 1e30}), out=tmp_path / "wild", quiet=True)
    assert dr.open_run(tmp_path / "wild").contents().status["t00"]["state"] == "stopped"
    assert (tmp_path / "wild" / "front.json").exists()


def test_search_whose_time_is_spent_returns_and_says_so(tiny, tmp_path, capsys):
    run = dr.run_search(tiny(), out=tmp_path / "demo", time_budget=0.01, json=True, to_continue="mine --again")
    assert (run.outcome.state, run.outcome.left) == ("paused", ("t00",))
    assert '"resume": "mine --again"' in capsys.readouterr().out.splitlines()[-1]
    again = dr.run_search(tiny(), out=tmp_path / "demo", resume=True, time_budget=0.01, json=True)
    assert '"resume": null' in capsys.readouterr().out.splitlines()[-1]  # nothing of this process's own arguments
    assert again.outcome.state == "paused"


LONGER = {"data.image_size": 14, "shrink.gamma_growth": 1.5, "shrink.rate": 0.05, "shrink.floor.operations": 4}


def interrupt_after(found):
    """Press Ctrl-C, as the kernel of a notebook does, once something is found."""

    def wait():
        end = time.monotonic() + 120
        while not found() and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_interrupt_ends_after_the_step_and_a_resume_goes_on(tiny, tmp_path):
    config, out = tiny({**LONGER, "train.epochs": 40}), tmp_path / "demo"
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    thread = interrupt_after(lambda: list(out.glob("trials/t00/snapshots/*.json")))
    run = dr.run_search(config, out=out, quiet=True)
    thread.join()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert (run.outcome.state, run.outcome.signum, run.outcome.left) == ("interrupted", signal.SIGINT, ("t00",))
    status = run.contents().status["t00"]
    assert (status["state"], status["reason"]) == ("interrupted", "interrupted by SIGINT")
    assert load_newest(out.glob("trials/t00/checkpoints/*"))["step"] == status["step"]
    assert (out / "front.json").exists()
    again = dr.run_search(config, out=out, resume=True, quiet=True, time_budget=0.01)
    assert again.outcome.state == "paused"
    assert again.contents().status["t00"]["step"] == status["step"]


def test_search_in_another_thread_leaves_signals_alone(tiny, tmp_path):
    before, seen, ended = signal.getsignal(signal.SIGINT), [], []

    def call():
        ended.append(dr.run_search(tiny({"train.epochs": 2}), out=tmp_path / "demo", quiet=True).outcome.state)

    thread = threading.Thread(target=call)
    thread.start()
    while thread.is_alive():
        seen.append(signal.getsignal(signal.SIGINT))
        thread.join(0.05)
    assert ended == ["finished"]
    assert set(seen) == {before}


def test_outcome_is_frozen():
    with pytest.raises(AttributeError):
        Outcome(state="finished").state = "failed"


@pytest.fixture
def reads(monkeypatch):
    """How often the contents of a run were read."""
    read, names = reading.read_file, []

    def counting(file, *args, **options):
        names.append(file.name)
        return read(file, *args, **options)

    monkeypatch.setattr(reading, "read_file", counting)
    return lambda: names.count("config.yaml")


def test_resumed_run_is_read_once_before_and_once_after(tiny, tmp_path, reads):
    out = tmp_path / "demo"
    dr.run_search(tiny(), out=out, quiet=True, time_budget=0.01)
    assert reads() == 1  # at its end
    dr.run_search(tiny(), out=out, quiet=True, resume=True)
    assert reads() == 1 + 2
    dr.run_search(tiny(), out=out, quiet=True, resume=True)  # nothing is left to do
    assert reads() == 1 + 2 + 1
    dr.run_sweep(tiny(), out=out, quiet=True, resume=True)
    assert reads() == 1 + 2 + 1 + 1


@pytest.mark.ray
@pytest.mark.slow
def test_sweeps_of_one_process_one_after_the_other(tiny, tmp_path, reads, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = tiny({"sweep.num_trials": 2, "sweep.cpus_per_trial": 1})
    run = dr.run_sweep(config, out=tmp_path / "demo", quiet=True, max_trials=1)
    assert (run.outcome.state, run.outcome.left) == ("paused", ("t01",))
    assert run.outcome.reason == "max_trials 1 is reached; 1 of 2 trials are not at their end (t01)"
    assert reads() == 1
    run = dr.run_sweep(config, out=tmp_path / "demo", quiet=True, resume=True)
    assert reads() == 3
    assert (run.outcome.state, run.outcome.left) == ("finished", ())
    assert set(run.snapshots()["trial"]) == {"t00", "t01"}
