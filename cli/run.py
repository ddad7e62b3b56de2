"""``blkproof run``: the main job, from scenarios to a verdict and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from blkproof.cli.console import progress, tidy_errors
from blkproof.cli.drivers import built, driver_options, variants
from blkproof.cli.settings import SET, combinations, scenario_named, validated
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
    """One run to do: a scenario, the settings asked for, and its name in the output directory."""

    scenario: Scenario
    settings: dict[str, str]

    @property
    def name(self) -> str:
        """Name of the capture: scenario and settings."""
        return "-".join([self.scenario.name, *(f"{key}={value}" for key, value in self.settings.items())])


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
    type=click.Choice(["auto", "kvm", "tcg"]),
    default="auto",
    show_default=True,
    help="auto takes KVM only where Xen really boots under it.",
)
@click.option(
    "--image", "image_name", default="debian12", show_default=True, help="Name or file of a recipe."
)
@driver_options
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
    blkback_patch: tuple[Path, ...],
    blkback_src: Path | None,
    blkfront_patch: tuple[Path, ...],
    blkfront_src: Path | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Run each SCENARIO on a real Xen, record it, check it, and write one report.

    \b
    blkproof run basic
    blkproof run basic --set persistent=on,off --set indirect=on,off
    blkproof run basic --blkback-patch my.patch --json
    blkproof run basic --blkfront-patch series.mbox --blkfront-src ~/linux
    """  # noqa: D301 - \b is click's mark for text that it must not wrap
    jobs = [
        Job(scenario, validated(scenario, settings))
        for scenario in map(scenario_named, scenarios)
        for settings in combinations(sets)
    ]
    own = variants(
        {"blkback": blkback_patch, "blkfront": blkfront_patch},
        {"blkback": blkback_src, "blkfront": blkfront_src},
    )
    out = out or Path("runs") / datetime.now().strftime("%Y%m%dT%H%M%S")
    if out.exists() and any(out.iterdir()):
        raise click.UsageError(f"--out {out}: not empty; captures are never overwritten")
    out.mkdir(parents=True, exist_ok=True)
    with progress("run") as say:
        bench = _bench(image_name, accel, own, say)
        runs = [_one(job, bench, out, say) for job in jobs]
        _report(runs, out, say)
    return show(runs, as_json=as_json)


def _bench(image_name: str, accel: Want, own: Sequence[Variant], say: Say) -> Bench:
    from blkproof.harness.accel import probe
    from blkproof.images.build import build
    from blkproof.images.recipe import load_recipe

    recipe = load_recipe(image_name)
    image = build(recipe, progress=say)
    drivers = built(recipe, own, say)
    accelerator = probe(image, accel)
    say(f"accelerator {accelerator.name}: {accelerator.why}")
    return Bench(image, accelerator, drivers)


def _one(job: Job, bench: Bench, out: Path, say: Say) -> Run:
    """Do one run; a failure ends this run alone, and is one of its outcomes."""
    from blkproof.analysis.errors import AnalysisError
    from blkproof.harness.errors import HarnessError
    from blkproof.harness.session import run as run_session
    from blkproof.traces.errors import CaptureError

    capture = out / job.name
    try:
        try:
            run_session(
                job.scenario,
                job.settings,
                image=bench.image,
                accelerator=bench.accelerator,
                out=capture,
                drivers=bench.drivers,
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
        accelerator = {"name": bench.accelerator.name, "why": bench.accelerator.why}
        return without_capture(job.scenario.name, job.settings, str(error), accelerator=accelerator)
    say(f"{job.name}: {judgement.outcome}, {judgement.verdict.requests} requests")
    return judgement


def _report(runs: Sequence[Run], out: Path, say: Say) -> None:
    from blkproof.analysis.report.html import write_report
    from blkproof.analysis.report.junit import write_junit

    page = out / "report.html"
    write_report(runs, page)
    write_junit(runs, out / "junit.xml")
    say(f"report: {page}")
