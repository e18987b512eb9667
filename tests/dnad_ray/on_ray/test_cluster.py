"""How Ray is started and joined, and what happens where that fails; Ray's side is played by the tests."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import OutOfMemoryError

from dnad_ray.config.run import RunConfig
from dnad_ray.errors import IncompleteRunError, ResourceError
from dnad_ray.on_ray import cluster as cluster_module
from dnad_ray.on_ray.cluster import cluster, ray_errors
from dnad_ray.run_folder.reading import read_run


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(cluster_module, "_PAUSE_SECONDS", 0.0)


def replace_init(monkeypatch, starts):
    """Let ``ray.init`` be a function that starts nothing; its answer names a folder, which is made private."""

    def init(**options):
        starts(**options)
        return SimpleNamespace(address_info={"session_dir": "/nowhere/session"})

    monkeypatch.setattr(ray, "init", init)


@pytest.fixture
def started(monkeypatch):
    """Notes how Ray was started, and starts none."""
    calls = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    replace_init(monkeypatch, lambda **options: calls.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 4.0}}])
    return calls


def test_cluster_that_starts_too_slowly_is_an_error_of_one_line(monkeypatch):
    def too_slow(**_):
        raise Exception("The current node timed out during startup.\nThe GCS has become overloaded.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", too_slow)
    with pytest.raises(ResourceError) as caught, cluster(RunConfig(), None):
        pass
    assert str(caught.value).startswith("Ray on this machine: got 'The current node timed out during startup. The GCS")
    assert "call again when the machine is less busy" in str(caught.value)
    assert "--address" not in str(caught.value)  # nobody gave one
    assert "\n" not in str(caught.value)
    refused = pytest.raises(
        ResourceError, match=r"^--address: got 'auto'; allowed: a Ray cluster that answers \(The cur"
    )
    with refused, cluster(RunConfig(), "auto"):
        pass


@pytest.mark.parametrize("variable", [None, ""])
def test_cluster_is_started_with_the_cpus_that_may_be_used(variable, started, monkeypatch):
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    monkeypatch.setattr(cluster_module, "usable_cpus", lambda: 3)
    with cluster(RunConfig(), None):
        pass
    (options,) = started
    assert (options["address"], options["num_cpus"]) == ("local", 3)
    # Longer than Ray's own limits, unless the user has set them.
    assert int(os.environ["RAY_agent_register_timeout_ms"]) > 30_000  # noqa: SIM112 - Ray's spelling
    assert os.environ["RAY_worker_niceness"] == "0"  # noqa: SIM112


def test_cluster_that_starts_at_the_second_try_is_good_enough(started, monkeypatch):
    tries = []

    def slow(**options):
        tries.append(options)
        if len(tries) == 1:
            raise Exception("The current node timed out during startup.")

    replace_init(monkeypatch, slow)
    with cluster(RunConfig(), None):
        pass
    assert len(tries) == 2


def test_cluster_that_never_starts_names_the_way_without_ray(started, monkeypatch):
    def broken(**options):
        started.append(options)
        raise Exception("no")

    monkeypatch.setattr(ray, "init", broken)
    with pytest.raises(ResourceError, match=r"tried 3 times: add --no-ray"), cluster(RunConfig(), None):
        pass
    assert len(started) == 3


def test_sweep_whose_ray_never_starts_runs_without_it(
    command, sweep_file, undisturbed, timeless, monkeypatch, tmp_path
):
    def broken(**_):
        raise Exception("The current node timed out during startup.")

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", broken)
    out = tmp_path / "demo"
    config = sweep_file({"sweep.num_trials": 2, "train.epochs": 2, "distill.kind": "logits"})
    code, said, err = command("sweep", config, "--out", out)
    assert (code, err) == (0, "")
    assert "sweep: without Ray, one trial after the other in this process, with the same results, because of " in said
    assert "Ray on this machine: got 'The current node timed out during startup.'" in said
    contents = read_run(out)
    assert {name: status["state"] for name, status in contents.status.items()} == {"t00": "finished", "t01": "finished"}
    assert timeless(contents.snapshots) == [*undisturbed(out, "t00"), *undisturbed(out, "t01")]

    # Who asked for a cluster gets no other machine instead, and trials of several processes need Ray.
    joined = command("sweep", config, "--address", "auto", "--out", tmp_path / "joined")
    assert (joined[0], "--address: got 'auto'" in joined[2]) == (2, True), joined
    shared = command("sweep", config, "--out", tmp_path / "shared", "--set", "train.num_processes=2")
    assert (shared[0], "Ray on this machine: got " in shared[2]) == (2, True), shared
    assert not (tmp_path / "joined").exists()
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize(("gib", "is_enough"), [(3, False), (None, True), (10_000, True)])
def test_cluster_whose_processes_cannot_map_their_memory_is_refused(gib, is_enough, started, monkeypatch):
    limit = resource.RLIM_INFINITY if gib is None else gib * 2**30
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    if is_enough:
        with cluster(RunConfig(), None):
            pass
    else:
        words = r"\(ulimit -v\): got '3\.0 GiB'; allowed: unlimited, or \d+ GiB for Ray's processes; --no-ray"
        with pytest.raises(ResourceError, match=words), cluster(RunConfig(), None):
            pass
    assert len(started) == is_enough


def test_cluster_leaves_the_handler_of_sigterm_alone(started, monkeypatch):
    def ours(*_):
        raise AssertionError

    def takes_over(**_):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    before = signal.signal(signal.SIGTERM, ours)
    try:
        replace_init(monkeypatch, takes_over)
        monkeypatch.setattr(ray, "shutdown", lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        with cluster(RunConfig(), None):
            assert signal.getsignal(signal.SIGTERM) is ours
        assert signal.getsignal(signal.SIGTERM) is ours  # while the report is written
    finally:
        signal.signal(signal.SIGTERM, before)


def test_processes_of_ray_are_not_in_the_group_of_the_command(started, monkeypatch):
    """SIGTERM to the whole group, as `timeout` sends it, must not end the processes that trials are stopped through."""

    def child():
        call = [sys.executable, "-c", "import os; print(os.getpgid(0))"]
        return int(subprocess.run(call, capture_output=True, check=True, preexec_fn=int).stdout)

    groups = []
    replace_init(monkeypatch, lambda **_: groups.append(child()))  # Ray's processes have a function there too
    with cluster(RunConfig(), None):
        groups.append(child())
    assert groups[0] != os.getpgid(0)
    assert groups[1] == os.getpgid(0)


def test_error_of_ray_is_one_line():
    with pytest.raises(IncompleteRunError) as caught, ray_errors("the sweep"):
        raise OutOfMemoryError("Task was killed due to the node running low on memory.\nMemory on the node: 1 / 2 GB")
    assert str(caught.value).startswith("Ray ended the sweep: Task was killed due to the node running low on memory. M")
    assert "\n" not in str(caught.value)
