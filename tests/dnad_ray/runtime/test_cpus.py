"""CPUs that a process may use: of the machine, its affinity, and the quotas of its cgroups."""

from __future__ import annotations

import os

import pytest
import torch

from dnad_ray.runtime import cpus
from dnad_ray.runtime.cpus import computing_with, limit_threads, quota_of, usable_cpus


@pytest.fixture
def groups(tmp_path):
    """Writes the files of cgroups: the list of a process's groups, and what the groups allow."""

    def write(own, **files):
        (tmp_path / "own").write_text(own)
        root = tmp_path / "mounted"
        for name, content in files.items():
            file = root / name.replace("__", "/").replace("_max", ".max").replace("cfs_", "cpu.cfs_")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path / "own", root

    return write


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/\n", {"cpu_max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu_max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/job/step\n", {"job__step__cpu_max": "max 100000\n", "job__cpu_max": "150000 100000\n"}, 1.5),
        ("0::/job/step\n", {"job__step__cpu_max": "50000 100000\n", "job__cpu_max": "400000 100000\n"}, 0.5),
        ("0::/of/the/host\n", {"cpu_max": "300000 100000\n"}, 3.0),  # inside a container
        ("1:cpu:/\n0::/\n", {"cpu__cfs_quota_us": "250000\n", "cpu__cfs_period_us": "100000\n"}, 2.5),
        ("1:cpu:/\n", {"cpu__cfs_quota_us": "-1\n", "cpu__cfs_period_us": "100000\n"}, None),
        ("4:cpu,cpuacct:/a\n", {"cpu__a__cfs_quota_us": "100000", "cpu__a__cfs_period_us": "50000"}, 2.0),
        ("3:memory:/\n", {"cpu__cfs_quota_us": "100000", "cpu__cfs_period_us": "100000"}, None),
        ("no groups\n", {"cpu_max": "100000 100000\n"}, None),
        ("0::/\n", {"cpu_max": "what is this\n"}, None),
        ("0::/\n", {"cpu_max": "100000 0\n"}, None),
    ],
)
def test_quota_is_the_least_of_all_groups(own, files, quota, groups):
    assert quota_of(*groups(own, **files)) == quota


def test_quota_where_there_are_no_cgroups(tmp_path):
    assert quota_of(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(("affinity", "quota", "usable"), [(8, None, 8), (8, 2.5, 2), (2, 6.0, 2), (4, 0.5, 1)])
def test_usable_cpus_are_the_least_of_affinity_and_quota(affinity, quota, usable, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)), raising=False)
    monkeypatch.setattr(cpus, "quota_of", lambda *_: quota)
    assert usable_cpus() == usable


@pytest.mark.parametrize(("variable", "expected"), [(None, 2), ("3", 3)])
def test_threads_are_no_more_than_usable_cpus_unless_the_user_says_so(variable, expected, monkeypatch):
    monkeypatch.setattr(cpus, "usable_cpus", lambda: 2)
    if variable is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    with computing_with(3):
        limit_threads()
        assert torch.get_num_threads() == expected


def test_computing_with_restores_the_threads():
    before, within = torch.get_num_threads(), []

    def fail():
        with computing_with(before + 1):
            within.append(torch.get_num_threads())
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert within == [before + 1]
    assert torch.get_num_threads() == before
