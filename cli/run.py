"""``blkproof run``: the main job, from scenarios to a verdict and a report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from blkproof.cli import exits
from blkproof.cli.console import progress, tidy_errors
from blkproof.cli.drivers import STOCK, built, driver_options, variants
from blkproof.cli.settings import SET, combinations, scenarios_named, validated
from blkproof.cli.verdicts import judged, show, without_capture

if TYPE_CHECKING:
    from blkproof.analysis.report.model import Run
    from blkproof.harness.accel import Want
    from blkproof.harness.host import Accelerator
    from blkproof.harness.scenario import Scenario
    from blkproof.images.build import Image
    from blkproof.images.drivers import Driver, Variant

Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One run to do: a scenario, the settings asked for, on the user's own drivers where there are some.

    ``mark`` is what its capture's name has besides scenario and settings.
    """

    scenario: Scenario
    settings: dict[str, str]
    own: bool = True
    mark: str = ""

    @property
    def name(self) -> str:
        """Name of the capture: scenario, settings, and what tells it from others of the same."""
        settings = (f"{key}={value}" for key, value in self.settings.items())
        return "-".join([self.scenario.name, *settings]) + self.mark


@dataclass(frozen=True)
class Bench:
    """What all runs of one command share: the image, the accelerator and the drivers put in its place."""

    image: Image
    accelerator: Accelerator
    drivers: Mapping[str, Driver]


@click.command()
@click.argument("scenarios", metavar="SCENARIO...", nargs=-1, required=True)
@SET
@click.option(
    "--accel",
    type=click.Choice(["auto", "kvm", "tcg", "icount"]),
    default="auto",
    show_default=True,
    help="auto takes KVM only where Xen really boots under it; icount counts instructions in place of time.",
)
@click.option(
    "--image", "image_name", default="debian12", show_default=True, help="Name or file of a recipe."
)
@driver_options
@click.option("--compare", is_flag=True, help="Run each job without and with your drivers, side by side.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    help="Run each job so many times.  [default: 1; 3 with --compare]",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="New directory for captures and report.  [default: runs/<time>]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a run, nothing else.")
@tidy_errors
def run(  # noqa: PLR0917 - click passes them by name
    scenarios: tuple[str, ...],
    sets: tuple[str, ...],
    accel: Want,
    image_name: str,
    drivers: str,
    blkback_patch: tuple[Path, ...],
    blkback_src: Path | None,
    blkfront_patch: tuple[Path, ...],
    blkfront_src: Path | None,
    compare: bool,
    rounds: int | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run each SCENARIO on a real Xen, record it, check it, and write one report.

    SCENARIO is a name from `blkproof list`, a TOML file, or `all`.

    \b
    blkproof run basic
    blkproof run basic --set persistent=on,off --set indirect=on,off
    blkproof run all --image debian13 --drivers stock
    \b
    Your own driver, built against the image's kernel in a few seconds:
      blkproof run persistent --blkfront-patch my.patch
      blkproof run all --blkback-patch v2-series.mbox --blkfront-patch v2-series.mbox
      blkproof run persistent --blkback-src ~/linux --blkback-patch on-top.patch
    Of a patch or series each option takes the part about its driver; files that belong
    to neither are named and left out.
    \b
    What your driver changes: --compare runs each job without and with it, in turn.
      blkproof run persistent --blkfront-patch my.patch --compare
    Many counts depend on timing and differ from round to round with the same driver: one
    is marked (≠) when the means of the two sides are more than five standard errors
    apart. Wall time is not compared.
    \b
    The exit code is that of the worst run (see `blkproof --help`). With --compare the
    runs with your driver decide: what the unchanged driver breaks does not count, since
    your patch may mend it. Only a run without it that could not be carried out gives 3.
    """  # noqa: D301 - \b is click's mark for text that it must not wrap
    own = variants(
        {"blkback": blkback_patch, "blkfront": blkfront_patch},
        {"blkback": blkback_src, "blkfront": blkfront_src},
    )
    if compare and drivers == STOCK:
        raise click.UsageError(
            "--compare: without your drivers it takes the rebuilt ones; leave out --drivers"
        )
    if compare and not own:
        raise click.UsageError("--compare: with what? give --blkback-patch, --blkfront-patch or a --...-src")
    jobs = [
        job
        for scenario in scenarios_named(scenarios)
        for settings in combinations(sets)
        for job in _rounds(scenario, validated(scenario, settings), compare, rounds or (3 if compare else 1))
    ]
    out = out or Path("runs") / datetime.now().strftime("%Y%m%dT%H%M%S")
    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"--out {out}: not empty; captures are never overwritten")
    with progress("run") as say:
        bench = _bench(image_name, accel, drivers, own, say)
        out.mkdir(parents=True, exist_ok=True)
        runs = [_one(job, bench, out, _counted(say, number, len(jobs))) for number, job in enumerate(jobs, 1)]
        _report(runs, out, say)
    code = show(runs, as_json=as_json)
    return exits.of(_deciding(jobs, runs)) if compare else code


def _rounds(scenario: Scenario, settings: dict[str, str], compare: bool, rounds: int) -> Iterator[Job]:
    """Give the runs of a scenario: the sides in turn, so that what changes on the host meets both."""
    for number in range(1, rounds + 1):
        mark = f"-{number}" if rounds > 1 else ""
        if compare:
            yield Job(scenario, settings, own=False, mark=f"-without{mark}")
        yield Job(scenario, settings, mark=f"-with{mark}" if compare else mark)


def _deciding(jobs: Sequence[Job], runs: Sequence[Run]) -> list[str]:
    """Return the outcomes that decide a comparison; see the command's help."""
    return [run.outcome for job, run in zip(jobs, runs, strict=True) if job.own or not run.carried_out]


def _bench(image_name: str, accel: Want, base: str, own: Sequence[Variant], say: Say) -> Bench:
    from blkproof.harness.accel import probe
    from blkproof.images.build import build
    from blkproof.images.recipe import load_recipe

    recipe = load_recipe(image_name)
    image = build(recipe, progress=say)
    drivers = built(recipe, base, own, say)
    accelerator = probe(image, accel)
    say(f"accelerator {accelerator.name}: {accelerator.why}")
    return Bench(image, accelerator, drivers)


def _counted(say: Say, number: int, total: int) -> Say:
    """Say which run of how many it is, where there are several."""
    return (lambda text: say(f"{number}/{total} {text}")) if total > 1 else say


def _one(job: Job, bench: Bench, out: Path, say: Say) -> Run:
    """Do one run; a failure ends this run alone, and is one of its outcomes."""
    from blkproof.analysis.errors import AnalysisError
    from blkproof.harness.errors import HarnessError
    from blkproof.harness.session import run as run_session
    from blkproof.traces.errors import CaptureError

    capture = out / job.name
    drivers = bench.drivers if job.own else {}
    try:
        try:
            run_session(
                job.scenario,
                job.settings,
                image=bench.image,
                accelerator=bench.accelerator,
                out=capture,
                drivers=drivers,
                progress=lambda text: say(f"{job.name}: {text}"),
            )
        except HarnessError as error:
            if not capture.exists():
                raise
            say(f"{job.name}: {error}")  # what was recorded until then is sealed, and says so itself
        say(f"{job.name}: checking")
        judgement = judged(capture)
    except (HarnessError, CaptureError, AnalysisError) as error:
        say(f"{job.name}: {error}")
        return without_capture(
            job.scenario.name,
            job.scenario.resolve(job.settings),
            str(error),
            accelerator={"name": bench.accelerator.name, "why": bench.accelerator.why},
            image={"name": bench.image.name, "digest": bench.image.digest},
            variants={name: dict(driver.made_of) for name, driver in drivers.items()},
        )
    say(f"{job.name}: {judgement.outcome}, {judgement.verdict.requests} requests")
    return judgement


def _report(runs: Sequence[Run], out: Path, say: Say) -> None:
    from blkproof.analysis.report.html import write_report
    from blkproof.analysis.report.junit import write_junit

    page = out / "report.html"
    write_report(runs, page)
    write_junit(runs, out / "junit.xml")
    say(f"report: {page}")
