"""One training step of the supernet against a plain supernet, and against itself with fewer operations alive.

    python benchmarks/search_step.py --settings release,demo --repeats 5 --json step.json

Both nets have the same weights, images, losses and optimizers, and their losses are compared before anything is timed.
A round times every net once, so that a drift of the machine meets all of them; figures are medians over rounds, ratios
are medians of the ratios of a round. On a CPU one thread is used and its own CPU time counts; peak memory is that of a
fresh process above what it held before it built the net. What bounds the step is measured in the same run: the speed
of a large matrix product, that of a copy in memory, and what an operation on a single number costs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.plain_supernet import PlainSupernet, copy_weights
from dnad_ray.config.run import DistillConfig, RunConfig, TrainConfig
from dnad_ray.runtime.devices import MEMORY_FORMAT, keep_freed_memory, to_device
from dnad_ray.search.learner import Learner
from dnad_ray.search.losses import shrinking_loss
from dnad_ray.search.relaxation import Relaxation
from search_spaces.shape import ImageShape, NetworkShape
from search_spaces.space import NAMED_OPERATIONS, SearchSpace
from search_spaces.supernet import Supernet

# operations, cells, nodes, channels of the images, width, classes, side
SETTINGS = {
    "release": (NAMED_OPERATIONS["dnad"], 8, 4, 3, 16, 10, 32),
    "darts": (NAMED_OPERATIONS["darts"], 8, 4, 3, 16, 10, 32),
    "small": (NAMED_OPERATIONS["darts"], 5, 4, 1, 8, 10, 8),
    "demo": (("sep_conv_3x3", "dil_conv_3x3", "max_pool_3x3", "skip_connect"), 3, 3, 1, 8, 10, 8),
}
BATCH_SIZE = 64
PRESSURE = (1e-3, 0.1)
# Operations that compute nothing: views and allocations.
NO_KERNELS = ("view", "reshape", "as_strided", "slice", "narrow", "transpose", "permute", "empty", "select", "split")
NO_KERNELS += ("expand", "squeeze", "unsqueeze", "detach", "alias", "unbind", "set_", "resize", "lift_fresh", "_unsafe")
NO_KERNELS += ("is_", "item", "_local_scalar", "result_type", "numpy_T")


def alive_at(supernet, share):
    """Delete all but a share of the candidates at random, but the first to go is never the last of its node."""
    chance = random.Random(0)
    candidates = list(enumerate(supernet.candidates))
    chance.shuffle(candidates)
    kept, seen = [], set()
    for position, item in candidates:
        if (item.cell, item.node) not in seen:
            seen.add((item.cell, item.node))
            kept.append(position)
    rest = [position for position, _ in candidates if position not in set(kept)]
    kept += rest[: max(0, round(share * len(candidates)) - len(kept))]
    supernet.remove(set(range(len(candidates))) - set(kept))


def build(setting, share, device, precision, is_plain):
    """Return (step, loss): a function that takes a training step, and one that returns the present loss."""
    operations, num_cells, num_nodes, in_channels, channels, num_classes, side = SETTINGS[setting]
    torch.manual_seed(0)
    shape = NetworkShape(
        images=ImageShape(in_channels=in_channels, image_size=side, num_classes=num_classes), init_channels=channels
    )
    supernet = Supernet(SearchSpace(operations=operations, num_cells=num_cells, num_nodes=num_nodes), shape)
    if share < 1:
        alive_at(supernet, share)
    images = torch.randn(BATCH_SIZE, in_channels, side, side).to(device)
    labels = torch.randint(num_classes, (BATCH_SIZE,)).to(device)
    if is_plain:
        net = PlainSupernet(operations, num_cells, num_nodes, in_channels, channels, num_classes)
        copy_weights(supernet, net)
        return plain_step(net.to(device), supernet.candidates, images, labels, precision)
    to_device(supernet, device)
    images = images.contiguous(memory_format=MEMORY_FORMAT)
    train = TrainConfig(precision=precision)
    learner = Learner(RunConfig(train=train, distill=DistillConfig(kind="none")), supernet, torch.nn.Identity(), None)

    def loss():
        return F.cross_entropy(supernet(images, learner.relaxation.weights()).logits, labels)

    return lambda: learner.step(images, labels, PRESSURE), loss


def plain_step(net, candidates, images, labels, precision):
    relaxation = Relaxation(candidates).to(images.device)
    train = TrainConfig()
    optimizer = torch.optim.Adam(
        net.parameters(), train.learning_rate, betas=train.betas, weight_decay=train.weight_decay
    )
    arch_optimizer = torch.optim.SGD(relaxation.parameters(), train.arch_learning_rate)

    def loss_under(weights):
        with torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            return F.cross_entropy(net(images, candidates, weights)[0], labels)

    def step():
        weights = relaxation.weights()
        total = shrinking_loss(loss_under(weights), weights, *PRESSURE)
        optimizer.zero_grad()
        arch_optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), train.grad_clip)
        optimizer.step()
        arch_optimizer.step()

    return step, lambda: loss_under(relaxation.weights())


def seconds(action, device, times=1):
    """CPU seconds of a call on a CPU, wall seconds up to the device's last kernel elsewhere."""
    if device.type == "cpu":
        began = time.process_time()
        for _ in range(times):
            action()
        return (time.process_time() - began) / times
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(times):
        action()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / times


def num_kernels(step, device):
    """Kernels that a step starts: on CPUs the calls of operations that compute, on GPUs what the profiler saw there."""
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU] + [activity.CUDA] * (device.type == "cuda")
    with torch.profiler.profile(activities=activities) as profile:
        step()
    if device.type == "cuda":
        return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())
    names = [
        event.name.removeprefix("aten::")
        for event in profile.events()
        if event.name.startswith("aten::") and not any(child.name.startswith("aten::") for child in event.cpu_children)
    ]
    return sum(
        not any(name == entry or (len(entry) > 1 and name.startswith(entry)) for entry in NO_KERNELS) for name in names
    )


def peak_memory(arguments, setting, share, is_plain):
    """Megabytes of a fresh process that takes two steps."""
    options = [setting, str(share), str(int(is_plain)), arguments.device, arguments.precision]
    command = [sys.executable, __file__, "--one", *options]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def one(setting, share, is_plain, device, precision):
    torch.set_num_threads(1)
    keep_freed_memory()  # as a search does, for both nets
    device = torch.device(device)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak of the imports
    before = peak_of_process()
    step, _ = build(setting, float(share), device, precision, bool(int(is_plain)))
    step()
    step()
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        print(peak_of_process() - before)


def peak_of_process():
    """Largest resident memory so far in megabytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def limits(device):
    """Return what the hardware does at best: GMAC/s of a large product, GB/s of a copy, microseconds of a tiny call."""
    matrix = torch.randn(1024, 1024, device=device)
    large = torch.randn(2**25, device=device)
    target = torch.empty_like(large)
    tiny = torch.zeros(1, device=device)

    def best(action, times):
        seconds(action, device, times)
        return min(seconds(action, device, times) for _ in range(3))

    return {
        "gmac_per_s": 1024**3 / best(lambda: matrix @ matrix, 20) / 1e9,
        "gb_per_s": 2 * large.numel() * 4 / best(lambda: target.copy_(large), 5) / 1e9,
        "us_per_call": best(lambda: tiny.add_(1), 2000) * 1e6,
    }


def macs_of_step(setting):
    """Multiply-adds of convolutions in a plain step: three times those of the forward pass, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    _, loss = build(setting, 1.0, torch.device("cpu"), "float32", True)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        loss()
    return 3 * counter.get_total_flops() / 2


def measure(arguments, setting, device):
    shares = [float(share) for share in arguments.alive.split(",")]
    ours = {share: build(setting, share, device, arguments.precision, False) for share in shares}
    plain = {share: build(setting, share, device, arguments.precision, True) for share in shares}
    difference = 0.0
    for share in shares:
        with torch.no_grad():
            ours_loss, plain_loss = float(ours[share][1]()), float(plain[share][1]())
        difference = max(difference, abs(ours_loss - plain_loss))
    tolerance = 1e-3 if arguments.precision == "float32" else 0.1
    assert difference < tolerance, f"the two nets do not compute the same: losses differ by {difference}"
    times = {(kind, share): [] for share in shares for kind in ("ours", "plain")}
    repeats = arguments.repeats * (4 if SETTINGS[setting][-1] < 32 else 1)
    for number in range(repeats + 1):
        for share in shares:
            for kind, nets in (("plain", plain), ("ours", ours)):
                taken = seconds(nets[share][0], device)
                if number:  # the first round pays for allocations and kernel choices
                    times[kind, share].append(taken)
    rows = []
    for share in shares:
        fast, slow = times["ours", share], times["plain", share]
        rows.append(
            {
                "setting": setting,
                "alive": share,
                "ours_s": statistics.median(fast),
                "plain_s": statistics.median(slow),
                "speedup": statistics.median(b / a for a, b in zip(fast, slow, strict=True)),
                "speedup_spread": [f(b / a for a, b in zip(fast, slow, strict=True)) for f in (min, max)],
                "of_dense": statistics.median(a / b for a, b in zip(fast, times["ours", shares[0]], strict=True)),
                "ours_images_per_s": BATCH_SIZE / statistics.median(fast),
                "plain_images_per_s": BATCH_SIZE / statistics.median(slow),
                "ours_kernels": num_kernels(ours[share][0], device),
                "plain_kernels": num_kernels(plain[share][0], device),
            }
        )
    del ours, plain
    for row in rows:
        for kind in ("ours", "plain"):
            row[f"{kind}_peak_mb"] = peak_memory(arguments, setting, row["alive"], kind == "plain")
        row["memory_ratio"] = row["ours_peak_mb"] / row["plain_peak_mb"]
    return {"rows": rows, "step_gmac": macs_of_step(setting) / 1e9, "loss_difference": difference}


def show(result, hardware):
    head = f"{'setting':9}{'alive':>6}{'plain s':>9}{'ours s':>9}{'faster':>8}{'spread':>13}{'of dense':>9}"
    print(head + f"{'images/s':>10}{'kernels plain/ours':>20}{'peak MB plain/ours':>20}{'ratio':>7}")
    for row in result["rows"]:
        low, high = row["speedup_spread"]
        print(
            f"{row['setting']:9}{row['alive']:>6.0%}{row['plain_s']:>9.3f}{row['ours_s']:>9.3f}{row['speedup']:>7.2f}x"
            f"{f'{low:.2f} - {high:.2f}':>13}{row['of_dense']:>9.2f}{row['ours_images_per_s']:>10.0f}"
            f"{row['plain_kernels']:>13} {row['ours_kernels']:>6}"
            f"{row['plain_peak_mb']:>13.0f} {row['ours_peak_mb']:>6.0f}{row['memory_ratio']:>7.2f}"
        )
    dense = result["rows"][0]
    arithmetic = result["step_gmac"] / hardware["gmac_per_s"]
    calls = dense["ours_kernels"] * hardware["us_per_call"] / 1e6
    print(
        f"          {result['step_gmac']:.2f} GMAC a step: {arithmetic:.3f} s at the speed of a large product "
        f"({arithmetic / dense['ours_s']:.0%} of ours); {calls:.3f} s for {dense['ours_kernels']} calls at the cost of "
        f"a tiny one ({calls / dense['ours_s']:.0%} of ours)\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--settings", default="release,darts,demo", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--alive", default="1,0.5,0.25,0.12", help="shares of the candidates that are alive")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (four times as many where images are small)")
    parser.add_argument("--json", type=Path, help="where to write all figures")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(*arguments.one)
        return
    settings = arguments.settings.split(",")
    if unknown := set(settings) - set(SETTINGS):
        parser.error(f"--settings: got {', '.join(sorted(unknown))}; allowed: {', '.join(SETTINGS)}")
    device = torch.device(arguments.device)
    torch.set_num_threads(1)
    keep_freed_memory()
    hardware = limits(device)
    at_best = "{gmac_per_s:.0f} GMAC/s, {gb_per_s:.1f} GB/s, {us_per_call:.1f} us a call".format(**hardware)
    print(f"{device}, {arguments.precision}, torch {torch.__version__}, one thread: {at_best}\n")
    results = {}
    for setting in settings:
        results[setting] = measure(arguments, setting, device)
        show(results[setting], hardware)
    if arguments.json:
        facts = {"device": str(device), "precision": arguments.precision, "torch": torch.__version__}
        arguments.json.write_text(json.dumps({**facts, "hardware": hardware, "settings": results}, indent=1))


if __name__ == "__main__":
    main()
