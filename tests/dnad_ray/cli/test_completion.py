"""Shells complete commands and options, as docs/commands.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("dnad-ray")


def completed(shell, words, position):
    asked = {"_DNAD_RAY_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
    return subprocess.run([PROGRAM], env=os.environ | asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_document_completion_of_each_shell(shell, repository):
    call = f"_DNAD_RAY_COMPLETE={shell}_source"
    assert f"{call} dnad-ray" in (repository / "docs" / "commands.md").read_text()
    script = subprocess.run(
        [PROGRAM],
        env=os.environ | {"_DNAD_RAY_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"_DNAD_RAY_COMPLETE={shell}_complete" in script


def test_commands_and_options_are_completed():
    assert completed("bash", "dnad-ray re", 1).split() == ["plain,recipes", "plain,report", "plain,retrain"]
    assert "plain,--under" in completed("bash", "dnad-ray fit --un", 2).split()
