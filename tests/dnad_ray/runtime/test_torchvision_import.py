"""The door to torchvision, tried in fresh interpreters: with the installed one, and with stand-ins for other builds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_DOOR = "from dnad_ray.runtime.torchvision_import import torchvision_datasets\n"


def _run(code: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter, with a folder of stand-in modules first on its path."""
    lines = f"import sys, torch\nsys.path.insert(0, {str(path)!r})\n" if path else ""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-W", "error", "-c", lines + _DOOR + code]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, check=False)


def _stand_in(folder: Path, init: str) -> None:
    package = folder / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(init)
    (package / "datasets.py").write_text("CIFAR10 = 'the stand-in'\n")


def test_installed_torchvision_imports_late_and_twice_the_same():
    result = _run(
        "import sys, dnad_ray.data.loading\n"
        "assert 'torchvision' not in sys.modules\n"
        "first = torchvision_datasets()\n"
        "assert first.CIFAR10 and first.FashionMNIST and first.SVHN\n"
        "assert torchvision_datasets() is first\n"
    )
    assert result.returncode == 0, result.stderr


def test_correct_install_is_left_alone(tmp_path):
    _stand_in(
        tmp_path,
        "import torch\n"
        "library = torch.library.Library('torchvision', 'DEF')\n"
        "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "library.impl('nms', lambda dets, scores, iou_threshold: scores + 1, 'CPU')\n",
    )
    result = _run(
        "assert torchvision_datasets().CIFAR10 == 'the stand-in'\n"
        "one = torch.ones(1)\n"
        "assert torch.ops.torchvision.nms(one, one, 0.5).item() == 2\n"
        "assert not hasattr(torch.ops.torchvision, 'qnms')\n",
        tmp_path,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("missing", ["nms", "qnms"])
def test_missing_operators_are_named_and_the_rest_kept(tmp_path, missing):
    present = {"nms": "qnms", "qnms": "nms"}[missing]
    _stand_in(
        tmp_path,
        "import torch\n"
        "from torchvision import half\n"
        f"@torch.library.register_fake('torchvision::{missing}')\n"
        "def fake(dets, scores, iou_threshold): return dets\n",
    )
    (tmp_path / "torchvision" / "half.py").write_text(
        "import torch\n"
        "library = torch.library.Library('torchvision', 'FRAGMENT')\n"
        f"if not hasattr(torch.ops.torchvision, '{present}'):\n"
        f"    library.define('{present}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
    )
    result = _run(
        "assert torchvision_datasets().CIFAR10 == 'the stand-in'\n"
        "torch.ops.torchvision.nms, torch.ops.torchvision.qnms\n"
        "try:\n"
        "    torch.ops.torchvision.nms(torch.ones(1, 4), torch.ones(1), 0.5)\n"
        "except NotImplementedError:\n"
        "    print('still cannot be called')\n",
        tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "still cannot be called"


@pytest.mark.parametrize("failure", ["RuntimeError('CUDA versions differ')", "ImportError('no such file')"])
def test_other_failures_are_passed_on(tmp_path, failure):
    _stand_in(tmp_path, f"raise {failure}\n")
    result = _run("torchvision_datasets()\n", tmp_path)
    assert result.returncode == 1
    assert failure.partition("(")[0] in result.stderr.splitlines()[-1]
