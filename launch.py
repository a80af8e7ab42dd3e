"""The command line: runs a config; shows its plan, its data and a run's progress; checks this machine."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from data.errors import UserError
from rlhf.config.check import check
from rlhf.config.explain import did_you_mean
from rlhf.config.load import load_config
from rlhf.config.resolved import resolve
from rlhf.config.schema import Config
from rlhf.reports.plan_tables import terminal_table

# Modules that need torch, Ray or vLLM are imported where they are used, so that a mistake in a config is reported at once.

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
data_app = typer.Typer(no_args_is_help=True, help="Look at a phase's data.")
app.add_typer(data_app, name="data")

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="a YAML file, such as configs/demo.yaml")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[a.b.c=value]...", help="settings that override the file: run.seed=7 phases.ppo.steps=20"),
]
RunDirectoryOrLatest = Annotated[Path | None, typer.Argument(metavar="[RUN_DIR]", help="default: the latest of runs/")]
PREVIEWED = 3  # samples
FIGURES = ("loss", "accuracy", "reward", "kl", "lr", "tokens/s")  # of a step, in `status`


@app.command()
def run(
    config: ConfigFile,
    overrides: Overrides = None,
    address: Annotated[str | None, typer.Option(help="join this cluster; default: start one on this machine")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="run as a Ray job, which survives this terminal")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="remove an earlier run of this name first")] = False,
) -> None:
    """Run every unfinished phase; an interrupted run continues. Exits with 1 if a goal is missed."""
    command = [word for word in sys.argv if word != "--fresh"]
    with told_plainly(interrupted=f"interrupted; to continue the run: python {shlex.join(command)}"):
        settings = load_config(config, overrides or ())
        if submit:
            raise typer.Exit(_submit(config, overrides or [], address, fresh))
        check(settings)  # before the heavy imports, and before anything is removed
        if fresh:
            _remove(Path(settings.run.directory))
        from rlhf import api

        summary = api.run(settings, address=address)
        summary.show(Console())
        from rlhf.reports.run_report import write_report

        Console().print(f"report: {write_report(summary.directory)}", highlight=False, soft_wrap=True)
        if summary.missed:
            raise typer.Exit(1)


@app.command()
def corpus(
    config: ConfigFile,
    overrides: Overrides = None,
    address: Annotated[str | None, typer.Option(help="join this cluster, where `workers` is above 1")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="remove the corpora of an earlier run of this name first")
    ] = False,
) -> None:
    """Make only a config's corpora: clean, deduplicate, tokenise; an interrupted run continues."""
    with told_plainly(interrupted="interrupted; the same command continues"):
        settings = load_config(config, overrides or ())
        check(settings)
        from rlhf import api

        if fresh:
            _remove_corpora(settings)
        summary = api.make_corpora(settings, address=address)
        summary.show(Console())
        for page in sorted(summary.directory.glob("artifacts/*/corpus.html")):
            Console().print(f"report: {page}", highlight=False, soft_wrap=True)
        if summary.missed:
            raise typer.Exit(1)


def _remove_corpora(settings: Config) -> None:
    for phase in settings.phases:
        if phase.kind == "corpus":
            for kind in ("artifacts", "checkpoints"):
                shutil.rmtree(Path(settings.run.directory) / kind / phase.name, ignore_errors=True)


def _submit(config: Path, overrides: list[str], address: str | None, fresh: bool) -> int:
    if fresh:
        raise UserError("--fresh cannot remove the job's directory on the cluster: choose another run.name instead")
    from actors.submit import submit

    return submit(str(config), overrides, address)


def _remove(directory: Path) -> None:
    if not directory.exists():
        return
    if not (directory / "config.yaml").exists():
        raise UserError(f"--fresh would remove {directory}, which is not a run's directory (it has no config.yaml)")
    shutil.rmtree(directory)


@app.command()
def scaling(
    config: ConfigFile,
    overrides: Overrides = None,
    address: Annotated[str | None, typer.Option(help="join this cluster; default: start one on this machine")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="remove the models of an earlier run first")] = False,
) -> None:
    """Train a grid of small models, fit a scaling law, predict larger models; an interrupted run continues."""
    with told_plainly(interrupted="interrupted; the same command continues"):
        settings = load_config(config, overrides or ())
        check(settings)
        from rlhf import api
        from rlhf.scaling.law_tables import show
        from rlhf.scaling.size_grid import grid_directory

        if fresh:
            api.check_scaling(settings)  # before anything is removed
            _remove(grid_directory(settings))
        report = api.scaling_law(settings, address=address)
        console = Console()
        show(report.figures, console)
        console.print(f"report: {report.page}", highlight=False, soft_wrap=True)
        if report.missed:
            console.print(Text(report.missed, "bold red"), soft_wrap=True)
            raise typer.Exit(1)


@app.command()
def plan(
    config: ConfigFile,
    overrides: Overrides = None,
    cpus: Annotated[float | None, typer.Option(help="CPUs of the cluster to plan for; default: this machine's")] = None,
    gpus: Annotated[float, typer.Option(help="GPUs of that cluster")] = 0,
) -> None:
    """Show what would run where, and each phase's inputs. Starts nothing."""
    with told_plainly():
        resolved = check(load_config(config, overrides or ()))
        from actors.placement import Resources
        from actors.placement import plan as plan_placement
        from rlhf.reports.plan_tables import phases_table, placement_table
        from rlhf.scaling.forecast import forecast_table, forecasts

        placement = plan_placement(resolved, None if cpus is None else Resources(cpus, gpus))
        console = Console()
        console.print(placement_table(placement.rows(), placement.on_gpus))
        console.print(phases_table(resolved))
        if expected := forecasts(resolved):
            console.print(forecast_table(expected))


@data_app.command("preview")
def preview(
    config: ConfigFile,
    phase: Annotated[str, typer.Argument(metavar="PHASE", help="its name")],
    overrides: Overrides = None,
) -> None:
    """Show three rows of each data set of a phase as the model sees them, trained tokens in colour."""
    with told_plainly():
        resolved = resolve(load_config(config, overrides or ()))  # not checked: other phases' data may be missing yet
        by_name = {each.name: each for each in resolved.phases}
        if phase not in by_name:
            raise UserError(f"{config}: there is no phase {phase!r}{did_you_mean(phase, by_name)}")
        from rlhf.phases.preview import preview as read

        console = Console()
        for name, (report, samples) in read(by_name[phase], PREVIEWED).items():
            console.print(Text(str(report)), soft_wrap=True)
            for number, pieces in enumerate(samples, 1):
                console.rule(f"{name} sample {number}".lstrip(), align="left")
                console.print(Text.assemble(*((text, "bold green" if trained else "dim") for text, trained in pieces)))


@app.command()
def report(directory: RunDirectoryOrLatest = None) -> None:
    """Write a run's report.html: figures, curves, alarms, data and answers, in one file."""
    with told_plainly():
        root = _run_directory(directory)
        from rlhf.reports.run_report import write_report

        Console().print(str(write_report(root)), highlight=False, soft_wrap=True)


@app.command()
def status(directory: RunDirectoryOrLatest = None) -> None:
    """Show each phase of a run: done, at which step with which figures, or to come."""
    with told_plainly():
        root = _run_directory(directory)
        settings = load_config(root / "config.yaml")
        from rlhf.rundir import Artifact, RunDirectory

        last = _last_steps(root / "metrics.jsonl")
        table = terminal_table("phase", "state", "figures")
        for phase in settings.phases:
            artifact = Artifact.read(RunDirectory(root).artifact(phase.name))
            row = last.get(phase.name)
            if artifact is not None:
                table.add_row(phase.name, f"done in {artifact.seconds:.0f} s", _figures(artifact.metrics))
            elif row is not None:
                of = f" of {steps}" if (steps := getattr(phase, "steps", None)) else ""
                state = f"step {row['step']}{of}, {time.time() - row['time']:.0f} s ago"
                table.add_row(phase.name, state, _figures({name: row[name] for name in FIGURES if name in row}))
            else:
                table.add_row(phase.name, "to come", "")
        console = Console()
        console.print(Text(str(root), "bold"))
        console.print(table)


def _run_directory(named: Path | None) -> Path:
    root = named or _latest(Path("runs"))
    if not (root / "config.yaml").exists():
        raise UserError(f"{root} is not a run's directory (it has no config.yaml)")
    return root


def _latest(runs: Path) -> Path:
    found = [file.parent for file in runs.glob("*/config.yaml")]
    if not found:
        raise UserError(f"there is no run in {runs.resolve()}: name a run's directory")
    return max(found, key=lambda root: max(file.stat().st_mtime for file in root.iterdir()))


def _last_steps(metrics: Path) -> dict[str, dict[str, Any]]:
    """The last step of each phase; lines of held-out figures are not steps."""
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["phase"]: row for row in rows if any(name in row for name in FIGURES)}


def _figures(metrics: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {'none' if value is None else format(value, '.4g')}" for name, value in metrics.items())


@app.command()
def replay(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="a run's directory")],
    step: Annotated[int, typer.Option(help="a stored one (phases.<name>.store_every)")],
    algorithm: Annotated[str, typer.Option(help="a built-in one, module:Class or file.py:Class")],
    parameters: Annotated[list[str] | None, typer.Argument(metavar="[parameter=value]...", help="its fields")] = None,
    phase: Annotated[str | None, typer.Option(help="the phase's name, if the run has several of kind rl")] = None,
    against: Annotated[str | None, typer.Option(help="the algorithm to compare with; default: the run's own")] = None,
) -> None:
    """Show what another algorithm would have computed for a stored step, beside the run's own."""
    with told_plainly():
        from rlhf.replay import load_algorithm
        from rlhf.replay import replay as compare

        other = load_algorithm(algorithm, parameters or ())
        compare(directory, step, other, phase, against and load_algorithm(against)).show(Console())


@app.command()
def doctor() -> None:
    """Check versions, devices, memory, disks and leftover processes; print the fix of each failure."""
    with told_plainly():
        from actors.doctor import checks

        console = Console()
        with console.status("checking (the imports take a while)"):
            found = checks()
        table = terminal_table("", "check", "found")
        for each in found:
            table.add_row(Text("ok", "green") if each.ok else Text("no", "bold red"), each.name, each.found)
        console.print(table)
        failures = [each for each in found if not each.ok]
        for each in failures:
            console.print(Text.assemble((f"{each.name}: ", "bold"), each.fix), soft_wrap=True)
        if failures:
            raise typer.Exit(1)


@contextmanager
def told_plainly(interrupted: str = "interrupted") -> Iterator[None]:
    """Turns a UserError into one line and exit code 2, Ctrl-C into one line and exit code 130. A bug keeps its traceback."""
    errors = Console(stderr=True)
    try:
        yield
    except UserError as error:
        for line in str(error).splitlines():
            errors.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        errors.print(Text(interrupted), soft_wrap=True)
        raise typer.Exit(130) from None


if __name__ == "__main__":
    app()
