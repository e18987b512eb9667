"""Where networks live, and what the process does with freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Prints the size of the heap in MiB before a tensor of 31 MiB, while there is one, and after it is freed.
PROGRAM = """
import torch
from dnad_ray.runtime.devices import keep_freed_memory

def heap():
    with open("/proc/self/maps") as file:
        line = next(line for line in file if line.rstrip().endswith("[heap]"))
    first, last = (int(text, 16) for text in line.split()[0].split("-"))
    return (last - first) // 2**20

keep_freed_memory() if {keeps} else None
sizes = [heap()]
tensor = torch.ones(31 * 2**18)
sizes.append(heap())
del tensor
print(*sizes, heap())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_keep_freed_memory_leaves_the_memory_of_a_tensor_to_the_next_one():
    def growth(keeps):
        command = [sys.executable, "-c", PROGRAM.format(keeps=keeps)]
        before, during, after = map(int, subprocess.run(command, capture_output=True, check=True).stdout.split())
        return during - before, after - before

    assert growth(keeps=False) == (0, 0)  # a mapping of its own, which the system takes back
    grown, kept = growth(keeps=True)
    assert grown >= 30
    assert kept == grown
