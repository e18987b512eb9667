"""The program: its commands, error messages and exit codes."""

from __future__ import annotations

import atexit
import gc
import signal
import sys
import warnings

import click

from dnad_ray.cli.baselines import baselines
from dnad_ray.cli.count import count, draw, published, spaces
from dnad_ray.cli.deploy import benchmark, export, measure, predict
from dnad_ray.cli.doctor import doctor
from dnad_ray.cli.fit import fit
from dnad_ray.cli.front import front, notebook, report
from dnad_ray.cli.messages import Program, fail, show_warning
from dnad_ray.cli.recipes import config, recipes
from dnad_ray.cli.retrain import retrain
from dnad_ray.cli.search import search, sweep
from dnad_ray.cli.teacher import teacher
from dnad_ray.commands.packages import check_packages
from dnad_ray.errors import DnadRayError, UserError, one_line
from dnad_ray.runtime.memory import address_space_limit
from dnad_ray.telemetry import no_usage_statistics
from dnad_ray.version import __version__

__all__ = ["cli", "main"]

_COMMANDS = (
    *(fit, search, sweep, teacher, front, report, notebook),
    *(retrain, baselines, measure, benchmark, export, predict),
    *(count, draw, published, spaces, recipes, config, doctor),
)


_LEAST_GARBAGE = 50_000
"""New containers before Python runs the garbage collector (its default is 700). This costs a few megabytes."""


def main() -> None:
    """Run the command line.

    Exit codes: 0 for success, 1 if a run did not finish, 2 for a mistake of the user, 130 after Ctrl-C, 143 after
    SIGTERM.
    """
    # Torch, Ray and pandas create a million permanent objects. Checking them for garbage again and again takes a
    # second during the imports, and another one when Python ends.
    gc.set_threshold(_LEAST_GARBAGE)
    atexit.register(gc.freeze)
    no_usage_statistics()
    warnings.showwarning = show_warning
    try:
        check_packages()
        cli.main(standalone_mode=False)
    except click.exceptions.Abort as error:  # click converts interrupts to this
        fail("interrupted", 128 + getattr(error.__cause__, "signum", signal.SIGINT))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        fail(error.format_message(), 2)
    except UserError as error:
        fail(str(error), 2)
    except DnadRayError as error:
        fail(str(error), 1)
    except (ImportError, MemoryError) as error:
        limit = address_space_limit()
        if limit is None:
            raise
        got = f"limit of the address space (ulimit -v): got {limit / 2**30:.1f} GiB"
        fail(f"{got}; allowed: none, or one in which torch and Arrow find room ({one_line(error)})", 2)
    except OSError as error:  # with a file name: a bad path (2); without: a failed disk (1)
        fail(f"{type(error).__name__}: {error}", 1 if error.filename is None else 2)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dnad-ray")
def cli() -> None:
    """Neural architecture search by deletion and distillation, with one Pareto front of networks as its result.

    Start with `dnad-ray sweep demo --out runs/demo`.
    """


for _command in _COMMANDS:
    cli.add_command(_command)
