"""`nst fit`: paints photographs in the manner of paintings."""

from collections.abc import Sequence
from contextlib import ExitStack

from nst_lightning.cli import arguments as typed
from nst_lightning.cli import options
from nst_lightning.interruption import handled, leave
from nst_lightning.terminal import say

_USAGE = """usage: nst fit PHOTO PAINTING ... [options]

  nst fit photo.jpg painting.jpg -o picture.png
  nst fit --config configs/quickstart.yaml
  nst fit --resume data/output-images/photo_painting

options, each also a setting of a configuration file; all of them: nst fit --help all
"""


def main(arguments: Sequence[str]) -> None:
    """Paints; or prints its help, with `--help all` that of every key of a configuration."""
    asked = bool({"-h", "--help"} & set(arguments))
    if asked:
        print(f"{_USAGE}\n{options.table(every='all' in arguments)}", flush=True)
        if "all" not in arguments:
            return
    given = typed.read([] if asked else arguments)
    if not asked:
        given.check_images()
    with handled(leave):  # not above: the help answers before torch could be imported
        from nst_lightning.api import quiet
        from nst_lightning.cli.configuration import Configuration, Job, parser_of
        from nst_lightning.modules import StyleTransfer

    with quiet(), ExitStack() as claims:
        if asked:
            print(f"\nAll options, in the words of a configuration file:\n\n{parser_of(StyleTransfer).format_help()}")
        else:
            job = Job(Configuration(given, StyleTransfer), claims)
            job.fit()
            if job.trainer.is_global_zero:
                where, again = job.run.folder, job.run.config
                say(f"curves: tensorboard --logdir {where}; page: nst report {where}; again: nst fit -c {again}")
