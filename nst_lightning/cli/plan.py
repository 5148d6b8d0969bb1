"""`nst plan`: what a run would take, found out in the way of a run."""

from collections.abc import Sequence

from nst_lightning import images, planning
from nst_lightning.api import quiet
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import Configuration, Job
from nst_lightning.cli.registry import Parser
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer
from nst_lightning.terminal import folded

HELP = """
usage: nst plan PHOTO PAINTING ... [options of nst fit] [--within TIME]

Tells what nst fit of the same options would take: batches, memory and time by size, from a few steps that
it really takes (for less than a minute). Writes nothing.

  --within TIME            how many devices it takes to be done in e.g. 90s (or 90), 30m, 1h or 1h30m

example:
  nst plan --pairs pairs.csv --size 2048 --tile auto --within 2h
"""


def main(arguments: Sequence[str]) -> None:
    """Prints what `nst fit` of the same options would take."""
    given, rest = Parser("plan", "--within").parse_known_args(arguments)
    within = None if given.within is None else planning.duration(given.within)
    job, found = estimate(rest)
    print(told(job, found, within))


def told(job: Job, found: planning.Estimate, within: float | None = None) -> str:
    """Returns what a run would take in words, see `planning.text`."""
    pictures = f"in {job.run.folder}" if job.writer.file is None else str(job.writer.file)
    of_run = Worker.of(job.trainer), job.trainer.world_size, pictures, within, job.data.paper
    return folded(planning.text(found, *of_run))


def estimate(
    arguments: Sequence[str], budget: float = planning.BUDGET, measured: planning.Measured | None = None
) -> tuple[Job, planning.Estimate]:
    """Returns the run that `nst fit` would make of the options, and what it would take, see `planning.estimate`."""
    with quiet():
        configuration = Configuration(read(arguments), StyleTransfer)
        if configuration.values.ckpt_path is not None:
            raise InputError("ckpt_path cannot be planned; what is left of a run is: nst plan --resume FOLDER")
        job = Job(configuration)
        if job.writer.file is not None:
            images.format_of(job.writer.file, job.writer.bits)
        return job, planning.estimate(job.module, job.data, Worker.of(job.trainer), budget, measured)
