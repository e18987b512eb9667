"""The cluster files: valid for Ray, and closed to everybody who has no token."""

from __future__ import annotations

import re
import runpy
import sys

import pytest
import yaml

pytest.importorskip("ray")

LAUNCHED = ("local", "aws", "gcp")  # by `ray up`; KubeRay has a format of its own


@pytest.fixture
def load(repository):
    def read(name):
        return yaml.safe_load((repository / "cluster" / f"{name}.yaml").read_text())

    return read


def starts_of(config):
    """The commands that start Ray, by what they start."""
    return {
        kind: [command for command in config[f"{kind}_start_ray_commands"] if "ray start" in command]
        for kind in ("head", "worker")
    }


def is_closed(start, kind):
    """Whether what starts a node asks for the token, sends no statistics and shows its dashboard to nobody."""
    common = {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0"} <= set(start.split())
    hosts = re.findall(r"--dashboard-host[= ](\S+)", start)
    if kind == "worker":
        return common and not hosts
    return common and hosts == ["127.0.0.1"] and "--disable-usage-stats" in start.split()


def test_cluster_files_are_all_looked_at(repository):
    names = {path.stem for path in (repository / "cluster").glob("*.yaml")}
    assert names == {*LAUNCHED, "kuberay"}
    assert [path.name for path in (repository / "cluster").glob("*.py")] == ["sweep.py"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_cluster_file_is_valid_for_ray(load, name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load(name))
    validate_config(prepared)
    assert prepared["provider"]["type"] == name
    assert prepared["head_start_ray_commands"] == load(name)["head_start_ray_commands"]  # ours, not Ray's defaults
    assert all(node.get("max_workers", 0) >= 0 for node in prepared["available_node_types"].values())


def test_cluster_file_validation_notices():
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError, match="head_start_command"):
        validate_config(prepare_config({"cluster_name": "x", "provider": {"type": "aws"}, "head_start_command": []}))


@pytest.mark.parametrize("name", LAUNCHED)
def test_cluster_file_has_token_loopback_dashboard_and_no_statistics(load, name):
    config = load(name)
    starts = starts_of(config)
    assert [len(commands) for commands in starts.values()] == [1, 1]
    for kind, (start,) in starts.items():
        assert is_closed(start, kind), start
        assert start.index("RAY_AUTH_MODE=token") < start.index("ray start")
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in config["setup_commands"]
    assert config["file_mounts"]["~/dnad-ray"] == "."
    assert "0.0.0.0" not in yaml.safe_dump(config)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        ("ray start --head --dashboard-host=127.0.0.1 --disable-usage-stats", "head"),
        ("RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start --head --disable-usage-stats", "head"),
        (
            "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start --head --dashboard-host=0.0.0.0 "
            "--disable-usage-stats",
            "head",
        ),
        ("RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start --head --dashboard-host=127.0.0.1", "head"),
        ("RAY_AUTH_MODE=token ray start --address=$RAY_HEAD_IP:6379", "worker"),
    ],
)
def test_cluster_file_check_notices(start, kind):
    assert not is_closed(start, kind)


def test_kuberay_file_has_token_loopback_dashboard_and_no_statistics(load):
    config = load("kuberay")
    assert (config["apiVersion"], config["kind"]) == ("ray.io/v1", "RayCluster")
    spec = config["spec"]
    assert spec["authOptions"] == {"mode": "token"}
    head = spec["headGroupSpec"]
    assert head["rayStartParams"]["dashboard-host"] == "127.0.0.1"
    assert head["rayStartParams"]["disable-usage-stats"] == "true"
    assert all(isinstance(value, str) for value in head["rayStartParams"].values())  # Kubernetes takes nothing else
    for group in (head, *spec["workerGroupSpecs"]):
        for container in group["template"]["spec"]["containers"]:
            assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
    assert "LoadBalancer" not in yaml.safe_dump(config)


@pytest.mark.parametrize("code", [0, 2, 7])
def test_sweep_script_passes_on_arguments_and_exit_code(repository, monkeypatch, code):
    from dnad_ray import cli

    seen = []

    def main():
        import os

        seen.append((list(sys.argv), os.environ["RAY_AUTH_MODE"], os.environ["RAY_ADDRESS"]))
        sys.exit(code)

    monkeypatch.setattr(cli, "main", main)
    monkeypatch.setattr(sys, "argv", ["sweep.py", "demo", "--out", "s3://bucket/a b"])
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")  # so that what the script sets is undone after the test
        monkeypatch.delenv(name)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(repository / "cluster" / "sweep.py"), run_name="__main__")
    assert end.value.code == code
    assert seen == [(["dnad-ray", "sweep", "demo", "--out", "s3://bucket/a b"], "token", "auto")]
