"""The entry of the command line: answers what it can before torch is imported, and hands on the rest."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from importlib.metadata import version

from nst_lightning.cli import options

COMMANDS = {
    "fit": "paint photographs in the manner of paintings",
    "plan": "tell what painting would take, without doing it: time, memory, devices",
    "reconstruct": "rebuild an image from what single layers hold of it",
    "score": "measure what pictures keep of the content and take of the style",
    "sweep": "compare settings: a labelled grid, tables and plots out of one file",
    "report": "show results on disk as one page of HTML",
    "validate": "score what a checkpoint holds",
    "inspect": "show what a network sees in an image: feature maps and Gram matrices",
    "backbones": "list the networks and their layers",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The command line without the program's name; None takes the process's.

    Returns:
        The exit code: 0, or 2 for what cannot be used.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] in (["-h"], ["--help"], ["help"]):
        print(_help())
        return 0
    if given[:1] == ["--version"]:
        print(f"nst {version('nst-lightning')}")
        return 0
    if not given or given[0] not in COMMANDS:
        print(_unknown(given), file=sys.stderr)
        return 2
    if given[0] == "inspect":  # it prints its own help
        from nst_lightning import inspection

        return inspection.main(given[1:])
    if given[0] == "score":  # likewise
        from nst_lightning.cli import score as command

        return command.main(given[1:])
    if given[0] == "sweep":  # likewise
        from nst_lightning.study import sweep_command

        return sweep_command.main(given[1:])
    if given[0] == "report":  # likewise
        from nst_lightning.study import report_command

        return report_command.main(given[1:])
    if {"-h", "--help"} & set(given[1:]):
        print(HELP[given[0]], flush=True)
        if given[0] != "fit":
            return 0
    if given[0] == "backbones":
        from nst_lightning.backbones import anatomy

        print(anatomy.table())
        return 0
    from nst_lightning.cli import commands

    return commands.main(given)


def _help() -> str:
    commands = "\n".join(f"  {name:<13}{text}" for name, text in COMMANDS.items())
    return (
        "usage: nst COMMAND [options]\n\n"
        "Neural style transfer by optimisation (Gatys et al., 2016).\n\n"
        f"commands:\n{commands}\n\n"
        "  nst COMMAND --help shows a command's options, nst --version the version.\n\n"
        "example:\n  nst fit --content photo.jpg --style painting.jpg --output picture.png"
    )


def _unknown(given: Sequence[str]) -> str:
    if not given:
        return _help()
    close = difflib.get_close_matches(given[0], COMMANDS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"nst: error: unknown command {given[0]!r}{hint} (commands: {', '.join(COMMANDS)}; see nst --help)"


HELP = {
    "fit": (
        "usage: nst fit [--config FILE] [options]\n\n"
        "examples:\n"
        "  nst fit --config configs/quickstart.yaml\n"
        "  nst fit --content photo.jpg --style painting.jpg --output picture.png\n"
        "  nst fit --resume data/output-images/photo_painting\n\n"
        "the options that matter first:\n"
        f"{options.table()}\n\n"
        "All options, in the words of a configuration file:\n"
    ),
    "plan": (
        "usage: nst plan [--config FILE] [options of nst fit] [--within TIME]\n\n"
        "Tells what nst fit of the same options would take: batches, memory and time by size, from a few steps that\n"
        "it really takes (for less than a minute). Writes nothing.\n\n"
        "  --within TIME            how many devices it takes to be done in e.g. 90s (or 90), 30m, 1h or 1h30m\n\n"
        "example:\n  nst plan --pairs pairs.csv --size 2048 --tile auto --within 2h"
    ),
    "reconstruct": (
        "usage: nst reconstruct --image FILE [--from content|style] [--layers LAYERS] [options]\n\n"
        "Rebuilds an image from noise, once for each layer, and puts the pictures in a row.\n\n"
        "  --image FILE             the image; a name is also looked up in data/content-images\n"
        "  --from content|style     what is kept of it: features at their places, or Gram matrices [content]\n"
        "  --layers LAYERS          e.g. relu1_2,relu4_2; from style, each sees those before it too [style layers]\n"
        "  --output FOLDER          [data/output-images/<image>_from_<content or style>]\n"
        "  --size PIXELS, --steps N long side [256], steps for each picture [200]\n"
        "  --stages N               coarse-to-fine sizes [2 from the content, 1 from the style]\n"
        "  --backbone, --weights, --tv_weight, --init, --optimizer, --seed, --save_every, --overwrite: as in nst fit;\n"
        "                           the start is uniform noise and there is no smoothing unless told otherwise"
    ),
    "validate": (
        "usage: nst validate --ckpt_path FILE [--config FILE] [options of nst fit]\n\n"
        "Scores the pictures that a checkpoint holds, and prints the table.\n\n"
        "  --ckpt_path FILE         a checkpoint, data/output-images/<run>/checkpoints/<pair>.ckpt\n"
        "  --config FILE            the run's configuration [the one in the checkpoint's run folder]\n"
        "  --scores NAMES           auto, or some of outline, palette, texture, leak, lpips, features [auto]\n\n"
        "A run's finished pictures are scored by nst score, and have their scores in the run's folder scores."
    ),
    "backbones": "usage: nst backbones\n\nLists the networks, where their weights come from, and their layers.",
}


if __name__ == "__main__":
    sys.exit(main())
