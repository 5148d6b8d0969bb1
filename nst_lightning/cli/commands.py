"""The commands: what each makes of its options, and the one line that says what cannot be used."""

from __future__ import annotations

import re
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from nst_lightning import figures, images, pairs, planning, runs
from nst_lightning.api import RECONSTRUCTION_STAGES, quiet, representations
from nst_lightning.backbones import spec_of
from nst_lightning.cli import options
from nst_lightning.cli.base import NSTCLI, names_of, say
from nst_lightning.cli.plan import PlanCLI
from nst_lightning.cli.validate import ValidateCLI
from nst_lightning.errors import InputError
from nst_lightning.modules import Reconstruction, StyleTransfer


def main(arguments: Sequence[str]) -> int:
    """Runs a command.

    Args:
        arguments: The command, a key of `COMMANDS`, and its options.

    Returns:
        The exit code: 0, or 2 after one line on what cannot be used.
    """
    command, *given = arguments
    try:
        with quiet():
            COMMANDS[command](given)
    except (InputError, MisconfigurationException, ArgumentError) as error:
        say(f"nst: error: {_one_line(error)}")
        return 2
    except (UnpicklingError, EOFError, RuntimeError) as error:  # EOFError for an empty file
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):  # a file that was cut off
            raise
        say("nst: error: the checkpoint is damaged or not one of this program's; it is not loaded")
        return 2
    return 0


def fit(given: list[str]) -> None:
    """Paints photographs: `nst fit`."""
    NSTCLI(given, StyleTransfer)


def plan(given: list[str]) -> None:
    """Says what `nst fit` of the same options would take: `nst plan`.

    Raises:
        InputError: If an option cannot be used.
    """
    parser = ArgumentParser(prog="nst plan", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--within")
    chosen, rest = parser.parse_known_args(given)
    within = None if chosen.within is None else planning.duration(chosen.within)
    planned = PlanCLI(rest)
    pictures = f"in {planned.folder}" if planned.writer.file is None else str(planned.writer.file)
    print(planning.text(planned.estimate, planned.trainer, pictures, within))


def validate(given: list[str]) -> None:
    """Scores what a checkpoint holds: `nst validate`."""
    ValidateCLI(given)


def reconstruct(given: list[str]) -> None:
    """Rebuilds an image from single layers, one run each, and puts the pictures in a row: `nst reconstruct`.

    Raises:
        InputError: If an option cannot be used.
    """
    parser = ArgumentParser(prog="nst reconstruct", add_help=False, exit_on_error=False, allow_abbrev=False)
    for name in ("--image", "--layers", "--output", "--backbone"):
        parser.add_argument(name)
    parser.add_argument("--from", dest="source", choices=["content", "style"], default="content")
    parser.add_argument("--overwrite", choices=["true", "false"], default="false")
    chosen, rest = parser.parse_known_args(given)
    (image,) = pairs.find("image", chosen.image, pairs.CONTENT_FOLDER)
    backbone = "vgg16" if chosen.backbone is None else chosen.backbone
    layers = spec_of(backbone).style_layers if chosen.layers is None else names_of(chosen.layers)
    overwrite = chosen.overwrite == "true"
    folder = runs.claim(chosen.output, [f"{Path(str(image)).stem}_from_{chosen.source}"], overwrite)[0].folder
    pictures = []
    for name, seen in representations(layers, chosen.source).items():
        of_image = ["--content", str(image), "--style", str(image), *_schedule(chosen.source)]
        of_layer = ["--model.source", chosen.source, "--model.layers", ",".join(seen), "--backbone", backbone]
        run = NSTCLI(
            [*of_image, *of_layer, *rest, "--output", str(folder / f"{name}.png"), "--overwrite", chosen.overwrite],
            Reconstruction,
        )
        pictures.append((name, images.read(run.writer.written[0]).rgb))
    original = images.resize(images.read(image).rgb, (pictures[0][1].shape[-2], pictures[0][1].shape[-1])).clamp(0, 1)
    labels = [_label(name, rgb, original, chosen.source) for name, rgb in pictures]
    row = figures.strip(
        [images.to_pil(rgb) for rgb in (original, *(rgb for _, rgb in pictures))], ["original", *labels]
    )
    print(images.write(folder / "strip.png", images.read(row).rgb, overwrite=overwrite))


def _schedule(source: str) -> list[str]:
    return ["--size", "256", "--steps", "200", "--stages", str(RECONSTRUCTION_STAGES[source])]


def _label(layer: str, rgb: Tensor, original: Tensor, source: str) -> str:
    """Returns what stands over a picture, and prints how near it comes to the original where it is to."""
    if source == "style":
        return layer  # the style keeps no places: what is alike need not be near
    ratio = peak_signal_noise_ratio(rgb, original, data_range=1.0).item()
    print(f"{layer}: PSNR {ratio:.2f} dB")
    return f"{layer}  {ratio:.1f} dB"


COMMANDS: Mapping[str, Callable[[list[str]], None]] = {
    "fit": fit,
    "plan": plan,
    "reconstruct": reconstruct,
    "validate": validate,
}


def _one_line(error: Exception) -> str:
    """Returns an error's text without line breaks, in short names and words rather than in classes."""
    text = " ".join(str(error).split())
    for option in options.OPTIONS:
        text = text.replace(f'Parser key "{option.target}":', f"--{option.name}:")
    text = re.sub(r"""Parser key ["']([^"']+)["']:""", r"\1:", text)
    text = re.sub(r"a typing\.Literal(\[[^]]*\])", r"one of \1", text)
    return re.sub(r"<class '([^']+)'>", r"\1", text)
