"""Differentiable neural architecture distillation on Ray: one search, a whole Pareto front of networks.

::

    import dnad_ray as dr

    run = dr.fit("photos", out="runs/photos", time_budget="2h")  # trained, tested networks from large to small
    run = dr.run_sweep("images", data="photos", out="runs/mine", trials=6)  # or step by step
    run.front(objectives=("error", "macs"))
    run.retrain(recipe="quick", networks=5)
    run.export("net.onnx", under={"macs": "30M"})
    dr.load_model("net.onnx").predict(["a.jpg", "b.png"])

To import the package loads neither torch nor Ray nor pandas; a name loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module

from dnad_ray.version import __version__

TYPE_CHECKING = False  # type checkers take it for true; to import `typing` takes longer than all the rest
if TYPE_CHECKING:
    from dnad_ray.commands.deploy import Exported
    from dnad_ray.commands.outcome import Outcome
    from dnad_ray.commands.run import Run, fit, load_model, make_teacher, open_run, run_retrain, run_search, run_sweep
    from dnad_ray.config.run import RunConfig
    from dnad_ray.deploy.predict import Model, Prediction
    from dnad_ray.errors import DnadRayError, UserError

__all__ = [
    "DnadRayError",
    "Exported",
    "Model",
    "Outcome",
    "Prediction",
    "Run",
    "RunConfig",
    "UserError",
    "__version__",
    "fit",
    "load_model",
    "make_teacher",
    "open_run",
    "run_retrain",
    "run_search",
    "run_sweep",
]

_HOMES = {
    **dict.fromkeys(
        ("Run", "fit", "make_teacher", "open_run", "run_retrain", "run_search", "run_sweep"), "commands.run"
    ),
    **dict.fromkeys(("Model", "Prediction"), "deploy.predict"),
    **dict.fromkeys(("DnadRayError", "UserError"), "errors"),
    "Exported": "commands.deploy",
    "Outcome": "commands.outcome",
    "RunConfig": "config.run",
    "load_model": "commands.run",
}
"""In which module each public name is."""


if not TYPE_CHECKING:  # a type checker would believe that there is every name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
