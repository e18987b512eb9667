"""What a process of a shared search does in the tests of it: a program, started once for each rank.

    python two_processes.py FOLDER RANK SIZE

reads ``jobs.json`` in the folder and writes what it found to ``RANK.json``.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import json
import sys
import time
from pathlib import Path

import torch
import torch.distributed
import torch.nn.functional as F

from dnad_ray.config.run import config_from_dict
from dnad_ray.data.loading import Split, load_data
from dnad_ray.distill.teacher import load_teacher, read_teacher
from dnad_ray.errors import DnadRayError
from dnad_ray.run_folder.checkpoints import load_newest, save_checkpoint
from dnad_ray.run_folder.records import Snapshot
from dnad_ray.runtime.processes import ALONE, check_same, digest_of, ranks_here, share_state
from dnad_ray.search.loop import SearchState, search
from dnad_ray.search.losses import shrinking_loss
from dnad_ray.training.evaluate import accuracy_of

CPU = torch.device("cpu")


def load(folder, job, config):
    """The images of the job, 192 and 128 of them if no more are asked for, and its teacher."""
    data = load_data(config.data)
    if config.data.name == "digits" and not job.get("all_images"):
        parts = (
            Split(images=p.images[:n], labels=p.labels[:n]) for p, n in ((data.train, 192), (data.validation, 128))
        )
        train, validation = parts
        data = dataclasses.replace(data, train=train, validation=validation)
    file = read_teacher(folder / "teacher")
    if file is None:
        return data, None
    kind = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)  # that of the file
    teacher = load_teacher(file, CPU)
    torch.set_default_dtype(kind)
    teacher.network.to(kind)
    return data, teacher


def start(folder, job, ranks):
    config = config_from_dict(job["config"])
    return SearchState.start(config, *load(folder, job, config), run="r", trial="t", ranks=ranks)


def followed(state):
    """Run a search to its end; returns its events and a digest of everything after every step."""
    digests = []
    batch = state.batches.batch

    def batch_and_digest(step):
        digests.append(digest_of(state.shared_bits()).hex())
        return batch(step)

    state.batches.batch = batch_and_digest
    events = [(event, len(digests)) for event in search(state)]
    return [event for event, _ in events], [*digests, digest_of(state.shared_bits()).hex()]


def records(events):
    return [
        {key: value for key, value in event.to_dict().items() if key != "device_seconds"}
        for event in events
        if isinstance(event, Snapshot)
    ]


def searched(folder, job, ranks):
    """What a search from beginning to end records."""
    return {"records": records(search(start(folder, job, ranks)))}


def whole(folder, job, ranks):
    """A search from beginning to end, and how the network it leaves scores with and without help."""
    state = start(folder, job, ranks)
    began = time.perf_counter()
    events, digests = followed(state)
    seconds = time.perf_counter() - began
    weights = state.relaxation.weights().detach()
    score = lambda who: accuracy_of(  # noqa: E731
        state.supernet, lambda x: state.supernet(x, weights).logits, state.data.validation, state.data, 50, ranks=who
    )
    return {
        "records": records(events),
        "digests": digests,
        "compute": [seconds, state.device_seconds] if ranks.is_first else [],
        "num_candidates": len(state.supernet.candidates),
        "scores": [score(ranks), score(ALONE)],
        "losses": [entry["train_loss"] for entry in state.history],
        "accuracies": [entry["train_accuracy"] for entry in state.history],
    }


def resumed(folder, job, ranks):
    """The same search, given up after some events and taken up again by new objects from the first one's checkpoint."""
    state = start(folder, job, ranks)
    events = []
    for event in search(state):
        events.append(event)
        if isinstance(event, Snapshot) and state.step >= 6:
            break
    if ranks.is_first:
        save_checkpoint(folder / "checkpoints" / "1", state.state_dict(), state.step)
        torch.manual_seed(99)
    del state
    saved = load_newest(folder.glob("checkpoints/*")) if ranks.is_first else None  # the others see no disk
    saved = share_state(ranks, saved, CPU)
    config = config_from_dict(job["config"])
    again = SearchState.resume(saved, config, *load(folder, job, config), run="r", trial="t", ranks=ranks)
    first = again.step
    later, digests = followed(again)
    return {"step": first, "records": records(events + later), "digests": digests}


def nothing_saved(folder, job, ranks):
    return share_state(ranks, None, CPU)


def one_step(folder, job, ranks):
    """A step in float64 beside the same step of plain torch: the mean over the batch of both parts' gradients."""
    torch.set_default_dtype(torch.float64)
    state = start(folder, job, ranks)
    alone = start(folder, job, ALONE)
    (images, labels), gamma, mu, clip = alone.batches.batch(0), 0.3, 0.7, state.config.train.grad_clip
    halves = [slice(0, len(labels) // 2), slice(len(labels) // 2, len(labels))]
    networks = [copy.deepcopy(alone.supernet) for _ in halves]
    parameters = [*alone.supernet.parameters(), *alone.imitation.parameters(), alone.relaxation.parameter]
    total = [torch.zeros_like(parameter) for parameter in parameters]
    for half, network in zip(halves, networks, strict=True):
        weights = alone.relaxation.weights()
        output = network(images[half].double(), weights)
        loss = F.cross_entropy(output.logits, labels[half])
        with torch.no_grad():
            target = alone.teacher.network(images[half].double())
        loss = shrinking_loss(loss + 0.5 * alone.imitation(output, target), weights, gamma, mu)
        own = [*network.parameters(), *alone.imitation.parameters(), alone.relaxation.parameter]
        for entry, gradient in zip(total, torch.autograd.grad(loss, own, allow_unused=True), strict=True):
            if gradient is not None:
                entry.add_(gradient, alpha=len(labels[half]) / len(labels))
    network_part = total[: len(list(alone.supernet.parameters()))]
    norm = torch.cat([entry.reshape(-1) for entry in network_part]).norm()
    for entry in network_part:
        entry.mul_(min(1.0, clip / (norm + 1e-6)))
    batch, labels = state.batches.batch(0)
    state.learner.step(batch.double(), labels, (gamma, mu), state.batches.batch_size)
    ours = [*state.supernet.parameters(), *state.imitation.parameters(), state.relaxation.parameter]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in ours]
    means = [entry for entry in state.supernet.buffers() if entry.is_floating_point()]
    expected = [[b for b in network.buffers() if b.is_floating_point()] for network in networks]
    weighted = [
        sum(entry * len(images[half]) for entry, half in zip(entries, halves, strict=True)) / len(images)
        for entries in zip(*expected, strict=True)
    ]
    return {
        "sizes": [len(labels), len(images)],
        "norm": float(norm),
        "clip": clip,
        "gradients": max(float((a - b).abs().max()) for a, b in zip(gradients, total, strict=True)),
        "largest": max(float(entry.abs().max()) for entry in total),
        "arch": float(total[-1].abs().max()),
        "statistics": max(float((a - b).abs().max()) for a, b in zip(means, weighted, strict=True)),
        "halves_differ": max(float((a - b).abs().max()) for a, b in zip(*expected, strict=True)),
    }


def poisoned(folder, job, ranks):
    """A search of which one process alone computes what is no number."""
    state = start(folder, job, ranks)
    batch = state.batches.batch

    def spoilt(step):
        images, labels = batch(step)
        return images * (float("nan") if ranks.rank == 1 and step == 4 else 1.0), labels

    state.batches.batch = spoilt
    try:
        list(search(state))
    except DnadRayError as error:
        return f"{type(error).__name__}: {error}"
    return ""


def drifted(folder, job, ranks):
    """Two processes that agree, and then one whose weights differ in the last bit of one number."""
    state = start(folder, job, ranks)
    check_same(ranks, state.shared_bits, CPU)
    if ranks.rank == 1:
        first = next(state.supernet.parameters()).detach().view(-1)
        first[0] = torch.nextafter(first[0], torch.tensor(9.0))
    try:
        check_same(ranks, state.shared_bits, CPU)
    except DnadRayError as error:
        return f"{type(error).__name__}: {error}"
    return ""


TASKS = (searched, whole, resumed, nothing_saved, one_step, poisoned, drifted)


def main(folder: Path, rank: int, size: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'rendezvous'}",
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=60),
    )
    results = {}
    for name, job in json.loads((folder / "jobs.json").read_text()).items():
        (task,) = (task for task in TASKS if task.__name__ == job["task"])
        results[name] = task(folder / job["name"], job, ranks_here())
        torch.set_default_dtype(torch.float32)
    (folder / f"{rank}.json").write_text(json.dumps(results))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
