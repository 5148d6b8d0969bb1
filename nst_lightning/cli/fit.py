"""`nst fit`: paints photographs in the manner of paintings."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from nst_lightning.cli import arguments as typed
from nst_lightning.cli import options
from nst_lightning.interruption import importing
from nst_lightning.terminal import folded, say

_USAGE = """usage: nst fit PHOTO PAINTING ... [options]

  nst fit photo.jpg painting.jpg -o picture.png
  nst fit --config configs/quickstart.yaml
  nst fit --resume data/output-images/photo_painting

options, each also a setting of a configuration file; all of them: nst fit --help all
"""


def main(arguments: Sequence[str]) -> None:
    """Paints; or prints its help, with `--help all` that of every key of a configuration."""
    if {"-h", "--help"} & set(arguments):
        _help(every="all" in arguments)
        return
    given = typed.read(arguments)
    if ("print_config", ()) in given.options:
        _print_configuration(given)
        return
    given.check_images()
    paint(given)


def paint(given: typed.Given, sums: Mapping[str, str] | None = None) -> list[Path]:
    """Paints what was given, and returns the pictures that were written.

    Raises:
        InputError: If anything cannot be used, or the images are not those of the sums, see `recipe.Recipe`.
    """
    with importing():  # not above: a slip is answered before torch could be imported
        from nst_lightning.api import quiet
        from nst_lightning.cli.configuration import Configuration, Job
        from nst_lightning.cli.plan import told
        from nst_lightning.data import Worker
        from nst_lightning.modules import StyleTransfer
        from nst_lightning.planning import estimate

    with quiet(), ExitStack() as claims:
        job = Job(Configuration(given, StyleTransfer), claims)
        if sums is not None:
            job.check_images(sums)
        if job.data.paper is not None and job.trainer.is_global_zero:  # it may take days
            say(told(job, estimate(job.module, job.data, Worker.of(job.trainer))))
        job.fit()
        if job.trainer.is_global_zero and job.trainer.progress_bar_callback is not None:
            where, again = job.run.folder, job.run.config
            say(f"curves: tensorboard --logdir {where}\npage: nst report {where}\nagain: nst fit -c {again}")
        return job.writer.written


def _print_configuration(given: typed.Given) -> None:
    with importing():  # as above
        from nst_lightning.api import quiet
        from nst_lightning.cli.configuration import resolved

    with quiet():
        print(resolved(given), end="")


def _help(every: bool) -> None:
    print(f"{folded(_USAGE)}\n{options.table(every)}", flush=True)
    if every:
        with importing():  # not above: the short help needs no torch
            from nst_lightning.api import quiet
            from nst_lightning.cli.configuration import parser_of
            from nst_lightning.modules import StyleTransfer

        with quiet():
            print(f"\nAll options, in the words of a configuration file:\n\n{parser_of(StyleTransfer).format_help()}")
