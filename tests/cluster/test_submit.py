"""`ray up`, `ray submit`, `ray down` and `ray job submit`, for real, on the files that are shipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from analysis import front_of, load_runs
from dnad_ray.run_folder.reading import read_genotype, read_run

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SECONDS = 280  # after which what takes half a minute hangs
SMALL = ("smoke", "--trials", "1", "--set", "train.epochs=3", "--set", "distill.teacher.epochs=1")

SSHD = """
ListenAddress 127.0.0.1
HostKey /run/t/host_key
AuthorizedKeysFile /run/t/key.pub
PasswordAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile /run/t/sshd.pid
"""

UP = """
/usr/sbin/sshd -f /run/t/sshd_config
mkdir -m 700 "$HOME/.ray"
(umask 077; ray get-auth-token --generate > /dev/null)
ray up /run/t/local.yaml --yes --no-config-cache
ray submit /run/t/local.yaml cluster/sweep.py {arguments} --out /run/t/out/demo
ray exec /run/t/local.yaml 'RAY_AUTH_MODE=token ray status'
stat --format "token %a" /run/t/home/.ray/auth_token
tr '\\0' '\\n' < /proc/$(pgrep -x raylet)/environ | grep -E '^RAY_(AUTH_MODE|USAGE_STATS_ENABLED)='
ray submit /run/t/local.yaml cluster/sweep.py nonsense && echo "no mistake?" || echo "code $?"
ray down /run/t/local.yaml --yes
echo "raylets left: $(pgrep -cx raylet || true)"
"""

JOB = """
python -m pyftpdlib --write --interface 127.0.0.1 --port 2121 --directory /run/t/out 2> /run/t/ftp.log &
mkdir -m 700 "$HOME/.ray"
export RAY_AUTH_MODE=token
(umask 077; ray get-auth-token --generate > /dev/null)
ray start --head --port=6379 --dashboard-host=127.0.0.1 --disable-usage-stats
export RAY_ADDRESS=http://127.0.0.1:8265
python - <<'EOF'
import urllib.error, urllib.request
try:
    urllib.request.urlopen("http://127.0.0.1:8265/api/jobs/")
except urllib.error.HTTPError as error:
    print("without token:", error.code)
EOF
ray job submit --working-dir cluster -- python sweep.py {arguments} --out ftp://127.0.0.1:2121/demo
ray job submit --working-dir cluster -- python sweep.py nonsense && echo "no mistake?" || echo "code $?"
dnad-ray front ftp://127.0.0.1:2121/demo --json > /run/t/front.json
"""


def script(text):
    return text.replace("{arguments}", " ".join(SMALL))


def assert_has_its_front(folder):
    contents = read_run(folder)
    assert contents.problems == ()
    assert {name: entry["state"] for name, entry in contents.status.items()} == {"t00": "finished"}
    front = json.loads((folder / "front.json").read_text())
    assert [(row["trial"], row["step"]) for row in front] == [
        (row["trial"], row["step"]) for row in front_of(load_runs(folder)).to_dict("records")
    ]
    for record in front:
        assert read_genotype(folder, record["digest"]).digest == record["digest"]
    assert (folder / "report.html").stat().st_size > 10_000


def test_ray_up_submit_down_over_ssh(inside, repository, tmp_path):
    for program in ("sshd", "ssh", "ssh-keygen", "rsync", "pgrep"):
        if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            pytest.skip(f"needs {program} (Debian: openssh-server, rsync, procps)")
    for name in ("key", "host_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    (tmp_path / "sshd_config").write_text(SSHD)
    # The file that is shipped; filled in, and with the environment that is here instead of one from the network.
    config = yaml.safe_load((repository / "cluster" / "local.yaml").read_text())
    config["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    config["auth"] |= {"ssh_user": "root", "ssh_private_key": "/run/t/key"}
    config |= {"min_workers": 0, "max_workers": 0}
    first = config["setup_commands"][0]
    config["setup_commands"] = [
        first,
        f"echo 'export PATH={Path(sys.executable).parent}:$PATH PYTHONPATH=$HOME/dnad-ray' >> ~/.bashrc",
    ]
    (tmp_path / "local.yaml").write_text(yaml.safe_dump(config))

    code, said = inside(script(UP), SECONDS)
    assert code == 0, said
    assert_has_its_front(tmp_path / "out" / "demo")
    assert "token 600" in said
    assert "Total Usage:" in said  # `ray status` answers to the token; right after the start it knows nothing yet
    assert "RAY_AUTH_MODE=token" in said.splitlines()  # in the environment of the raylet itself
    assert "RAY_USAGE_STATS_ENABLED=0" in said.splitlines()
    assert "dnad-ray: error: recipe: got 'nonsense'" in said  # the command's own words, and its failure
    assert "code 1" in said
    assert "no mistake?" not in said
    assert "raylets left: 0" in said


def test_ray_job_submit_with_token_into_a_url(inside, tmp_path):
    (tmp_path / "out").mkdir()
    code, said = inside(script(JOB), SECONDS)
    assert code == 0, said
    assert_has_its_front(tmp_path / "out" / "demo")
    assert "without token: 401" in said
    assert "dnad-ray: error: recipe: got 'nonsense'" in said
    assert "no mistake?" not in said
    front = json.loads((tmp_path / "front.json").read_text())
    assert {row["run_path"] for row in front} == {"ftp://127.0.0.1:2121/demo"}
