"""Ray's token is its user's alone; that Ray accepts one that was made here, the sweeps of test_launch show."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import pytest
import ray

from dnad_ray.config.run import RunConfig
from dnad_ray.on_ray import cluster as cluster_module
from dnad_ray.on_ray.ray_token import keep_session_private, keep_token_private


@pytest.fixture
def token(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".ray" / "auth_token"


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


def test_token_is_made_private_whatever_the_umask(token):
    before = os.umask(0)
    try:
        keep_token_private()
    finally:
        os.umask(before)
    assert mode(token) == 0o600
    assert len(bytes.fromhex(token.read_text())) == 32
    assert [file.name for file in token.parent.iterdir()] == ["auth_token"]


def test_token_that_is_there_stays_but_loses_the_rights_of_others(token):
    token.parent.mkdir()
    token.write_text("secret")
    token.chmod(0o644)
    keep_token_private()
    assert (mode(token), token.read_text()) == (0o600, "secret")


@pytest.mark.parametrize(
    ("name", "value"), [("RAY_AUTH_TOKEN", "x"), ("RAY_AUTH_TOKEN_PATH", "x"), ("RAY_AUTH_MODE", "disabled")]
)
def test_token_from_elsewhere_needs_no_file(name, value, token, monkeypatch):
    monkeypatch.setenv(name, value)
    keep_token_private()
    assert not token.parent.exists()


def test_token_by_a_link_is_left_alone(token, tmp_path):
    target = tmp_path / "shared"
    target.write_text("secret")
    target.chmod(0o644)
    token.parent.mkdir()
    token.symlink_to(target)
    keep_token_private()
    assert mode(target) == 0o644


def test_token_in_a_home_that_cannot_be_made_is_no_error(token, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/none")
    keep_token_private()


def test_session_folder_is_its_users_alone(tmp_path):
    (tmp_path / "session").mkdir()
    (tmp_path / "session").chmod(0o777)
    keep_session_private({"session_dir": str(tmp_path / "session")})
    assert mode(tmp_path / "session") == 0o700
    keep_session_private({"session_dir": str(tmp_path / "gone")})


def test_session_of_a_started_ray_is_its_users_alone(tmp_path, monkeypatch):
    tmp_path.chmod(0o777)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", lambda **_: SimpleNamespace(address_info={"session_dir": str(tmp_path)}))
    monkeypatch.setattr(cluster_module, "allotment_of", lambda _: SimpleNamespace(threads=1))
    with cluster_module.cluster(RunConfig(), None):
        assert mode(tmp_path) == 0o700
