"""The paths and names of a run folder: one function per path; no other module contains these names.

Layout of a run folder::

    config.yaml                          the complete, resolved configuration; written first
    run.json                             marker, schema, name, version
    images.json                          classes, numbers and fingerprint of the images
    .lock                                who writes to the run, while a command does
    trials/<trial>/snapshots/<step>.json one file per snapshot, renamed into place: a killed trial loses none;
                                         those of a ladder are <step>-<rung>.json
    trials/<trial>/checkpoints/<step>/   the newest two states of the search, to continue from
    trials/<trial>/weights/<step>.safetensors   shared weights of a snapshot, where they are kept
    trials/<trial>/history.json          one entry per epoch
    trials/<trial>/status.json           its state, why, and what it changes in the configuration
    trials/<trial>/place.json            where Ray put the processes of a trial that several share
    genotypes/<digest>.json              every architecture that a snapshot names
    teacher/                             the teacher of all trials
    snapshots.parquet, front.json, report.html   made when the command ends, also where it was interrupted
    live.html, live.js                   a page that redraws itself while the run goes on, and what it draws
    tensorboard/<trial>/                 event files, for TensorBoard
    mlflow.db, mlflow-artifacts/         what MLflow keeps where it has no server
    ray/                                 what Ray needs while trials run
    .teacher-cache/                      outputs of the teacher while trials run, see dnad_ray.distill.teacher_cache
    teacher/teacher.json, teacher.safetensors    the teacher, if there is one
    teacher/checkpoints/<step>/          the newest two states of its training, until it is written
    retrained/<job>/job.json             what is trained, complete; written first
    retrained/<job>/history.json         one entry per epoch
    retrained/<job>/status.json          its state and why
    retrained/<job>/checkpoints/<step>/  the newest two states, to continue from
    retrained/<job>/weights.safetensors, network.json   the trained network
    retrained/<job>/result.json          the record; it is there when the job is at its end
    fit.json                             what `fit` planned and decided
    race/retrained/<job>/                its short trainings, measured on validation images
    measured/<name>.json                 latency and memory of one network on one machine
    baselines/<name>.json                networks that were searched for a comparison
    baselines/<name>/checkpoints/<step>/ the newest two states of such a search, until its network is written

A name that is no safe one is refused where it would become a part of a path.
"""

from __future__ import annotations

import re

from dnad_ray.errors import RunFolderError
from dnad_ray.storage.places import Place

__all__ = [
    "MARKER_KIND",
    "RUN_SCHEMA",
    "SAFE_NAME",
    "baseline_checkpoints",
    "baseline_file",
    "checked_name",
    "checkpoints_folder",
    "config_file",
    "front_file",
    "genotype_file",
    "history_file",
    "images_file",
    "is_safe_name",
    "job_checkpoints_folder",
    "job_file",
    "job_folder",
    "job_history_file",
    "job_status_file",
    "live_page_file",
    "live_script_file",
    "lock_file",
    "marker_file",
    "measured_file",
    "measured_files",
    "measured_folder",
    "mlflow_file",
    "placement_file",
    "ray_folder",
    "report_file",
    "result_file",
    "result_files",
    "retrained_folder",
    "snapshot_file",
    "snapshot_files",
    "snapshot_name",
    "snapshots_folder",
    "status_file",
    "table_file",
    "teacher_checkpoints",
    "teacher_file",
    "teacher_folder",
    "tensorboard_folder",
    "trial_entries",
    "trial_folder",
    "trials_folder",
    "weights_file",
]

MARKER_KIND = "dnad-ray run"
"""What the marker ``run.json`` of every run says it is."""

RUN_SCHEMA = 1
"""The newest schema of run folders that this version reads, and the one that it writes."""

SAFE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
"""What may name a file of a run folder (and has no two dots in a row)."""


def is_safe_name(name: str) -> bool:
    """Whether a name may become a part of a path."""
    return bool(SAFE_NAME.fullmatch(name)) and ".." not in name


def checked_name(name: str, what: str) -> str:
    """Return a name that may become a part of a path.

    Args:
        name: The name.
        what: What it is the name of, for the error.

    Raises:
        RunFolderError: If the name is not a safe one.

    >>> checked_name("t00", "trial name")
    't00'
    """
    if not is_safe_name(name):
        raise RunFolderError(what, name, "1 to 100 letters, digits, '.', '_' or '-', not starting with a dot, no '..'")
    return name


# -- the run ----------------------------------------------------------------------------------------------------


def config_file(run: Place) -> Place:
    """Return the file of the configuration."""
    return run / "config.yaml"


def marker_file(run: Place) -> Place:
    """Return the file that says that a folder is a run."""
    return run / "run.json"


def images_file(run: Place) -> Place:
    """Return the file that says which images a run was made with."""
    return run / "images.json"


def lock_file(run: Place) -> Place:
    """Return the file that a command locks while it writes to a run."""
    return run / ".lock"


def table_file(run: Place) -> Place:
    """Return the table of all snapshots."""
    return run / "snapshots.parquet"


def front_file(run: Place) -> Place:
    """Return the file of the front."""
    return run / "front.json"


def report_file(run: Place) -> Place:
    """Return the report."""
    return run / "report.html"


def live_page_file(run: Place) -> Place:
    """Return the page that shows the run while it goes on."""
    return run / "live.html"


def live_script_file(run: Place) -> Place:
    """Return what that page draws."""
    return run / "live.js"


def genotype_file(run: Place, digest: str) -> Place:
    """Return the file of an architecture."""
    return run / "genotypes" / f"{checked_name(digest, 'digest')}.json"


def teacher_folder(run: Place) -> Place:
    """Return the folder of the teacher."""
    return run / "teacher"


def teacher_file(run: Place) -> Place:
    """Return the description of the teacher."""
    return teacher_folder(run) / "teacher.json"


def teacher_checkpoints(folder: Place) -> Place:
    """Return where the states of a teacher's training are in the teacher's folder, until the teacher is written."""
    return folder / "checkpoints"


def tensorboard_folder(run: Place) -> Place:
    """Return the folder of the event files, one folder per trial."""
    return run / "tensorboard"


def mlflow_file(run: Place) -> Place:
    """Return the database of MLflow."""
    return run / "mlflow.db"


def ray_folder(run: Place) -> Place:
    """Return what Ray needs while trials run."""
    return run / "ray"


# -- trials -----------------------------------------------------------------------------------------------------


def trials_folder(run: Place) -> Place:
    """Return the folder of all trials."""
    return run / "trials"


def trial_entries(run: Place) -> list[Place]:
    """Return what the folder of all trials holds, in no order; names are not checked."""
    return [*run.glob("trials/*")]


def trial_folder(run: Place, trial: str) -> Place:
    """Return the folder of a trial."""
    return trials_folder(run) / checked_name(trial, "trial name")


def snapshots_folder(run: Place, trial: str) -> Place:
    """Return the folder of the snapshots of a trial."""
    return trial_folder(run, trial) / "snapshots"


def snapshot_files(run: Place, trial: str) -> list[Place]:
    """Return the files of the snapshots of a trial, by step."""
    return sorted(snapshots_folder(run, trial).glob("*.json"), key=lambda file: file.name)


def snapshot_name(step: int, rung: int) -> str:
    """Return the name of a snapshot's file without its end; in their order the network of the search itself is last.

    >>> sorted([snapshot_name(93, 0) + ".json", snapshot_name(93, 2) + ".json"])
    ['00000093-02.json', '00000093.json']
    """
    return f"{step:08d}-{rung:02d}" if rung else f"{step:08d}"


def snapshot_file(run: Place, trial: str, step: int, rung: int = 0) -> Place:
    """Return the file of a snapshot."""
    return snapshots_folder(run, trial) / f"{snapshot_name(step, rung)}.json"


def checkpoints_folder(run: Place, trial: str) -> Place:
    """Return the folder of the checkpoints of a trial, each named by its step."""
    return trial_folder(run, trial) / "checkpoints"


def weights_file(run: Place, trial: str, step: int) -> Place:
    """Return the file of the shared weights of a snapshot."""
    return trial_folder(run, trial) / "weights" / f"{step:08d}.safetensors"


def history_file(run: Place, trial: str) -> Place:
    """Return the file of the epoch reports of a trial."""
    return trial_folder(run, trial) / "history.json"


def status_file(run: Place, trial: str) -> Place:
    """Return the file of the status of a trial."""
    return trial_folder(run, trial) / "status.json"


def placement_file(run: Place, trial: str) -> Place:
    """Return the file that says where Ray put the processes of a trial."""
    return trial_folder(run, trial) / "place.json"


# -- what was made of networks ----------------------------------------------------------------------------------


def retrained_folder(run: Place) -> Place:
    """Return the folder of all jobs."""
    return run / "retrained"


def job_folder(run: Place, job: str) -> Place:
    """Return the folder of a job, which also holds its network."""
    return retrained_folder(run) / checked_name(job, "job name")


def job_file(run: Place, job: str) -> Place:
    """Return the file that says what a job trains."""
    return job_folder(run, job) / "job.json"


def job_history_file(run: Place, job: str) -> Place:
    """Return the file of the epochs of a job."""
    return job_folder(run, job) / "history.json"


def job_status_file(run: Place, job: str) -> Place:
    """Return the file of the status of a job."""
    return job_folder(run, job) / "status.json"


def job_checkpoints_folder(run: Place, job: str) -> Place:
    """Return the folder of the checkpoints of a job, each named by its step."""
    return job_folder(run, job) / "checkpoints"


def result_file(run: Place, job: str) -> Place:
    """Return the file of the record of a job."""
    return job_folder(run, job) / "result.json"


def result_files(run: Place) -> list[Place]:
    """Return the records of all jobs, in no order; the names of their folders are not checked."""
    return [*run.glob("retrained/*/result.json")]


def race_folder(run: Place) -> Place:
    """Folder of the short trainings that `fit` compares on validation images, laid out as a run folder."""
    return run / "race"


def fit_file(run: Place) -> Place:
    """File with the plan of `fit`."""
    return run / "fit.json"


def measured_folder(run: Place) -> Place:
    """Return the folder of all measurements."""
    return run / "measured"


def measured_files(run: Place) -> list[Place]:
    """Return all measurements, in no order."""
    return [*run.glob("measured/*.json")]


def measured_file(run: Place, name: str) -> Place:
    """Return the file of a measurement."""
    return measured_folder(run) / f"{checked_name(name, 'measurement name')}.json"


def baseline_file(run: Place, name: str) -> Place:
    """Return the file of a network that was searched for a comparison."""
    return run / "baselines" / f"{checked_name(name, 'baseline name')}.json"


def baseline_checkpoints(run: Place, name: str) -> Place:
    """Return where the states of the search for a baseline are, until its network is written."""
    return run / "baselines" / checked_name(name, "baseline name") / "checkpoints"
