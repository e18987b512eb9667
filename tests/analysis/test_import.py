from __future__ import annotations

import subprocess
import sys

import analysis


def test_import_loads_neither_torch_nor_ray(repository):
    code = "import sys, analysis; print(sorted({'torch', 'ray', 'fvcore'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_names_exist():
    assert sorted(analysis.__all__, key=str.lower) == sorted(set(analysis.__all__), key=str.lower)
    assert all(hasattr(analysis, name) for name in analysis.__all__)
