"""`nst style`: learns a style card from paintings, and shows what one holds."""

import math
import os
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

import PIL.Image
import torch
from tqdm import tqdm

from nst_lightning import files, images, runs
from nst_lightning.api import quiet, stylize
from nst_lightning.batches import Gallery, Style
from nst_lightning.cards import SUFFIX, Card, by_loss, described, is_card, mixed, name_of
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import Configuration, Job
from nst_lightning.cli.registry import Parser
from nst_lightning.data import Worker
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, STYLE_LOSSES, Matched, Statistic
from nst_lightning.losses.base import parts_of
from nst_lightning.modules import ImageOptimization, StyleTransfer
from nst_lightning.modules.evaluation import Evaluations
from nst_lightning.recipe import portable
from nst_lightning.terminal import STDERR, folded

HELP = """
usage: nst style learn PAINTINGS [-o FILE.style] [options of nst fit]
       nst style show FILE.style [-o TEXTURE]

learn keeps what the style losses compare of many paintings together, at the sizes at which nst fit looks at them, in
a file without the paintings. It goes wherever a painting may: nst fit photo.jpg FILE.style, also beside others with
--style_weights, at sizes near its own, for the same network and style losses (--backbone, --weights, --style_loss,
--style_layers, ...).

  PAINTINGS                files, folders or patterns
  -o, --output FILE        the card [data/output-images/<painting>.style]; of show, a texture painted from it
  --sizes PIXELS           long sides of the paintings, e.g. 256,512,1024 [those of the stages of --size and --stages]
  --half                   keeps drawn samples in 16 bits: a smaller file, pictures as good but not the same
  --size PIXELS, --steps N of the texture [192, 100]

example:
  nst style learn paintings/*.jpg -o vangogh.style && nst style show vangogh.style -o texture.png
"""


def main(arguments: Sequence[str]) -> None:
    """Learns or shows a card."""
    what, *rest = arguments or [""]
    if what == "learn":
        print(_learn(rest))
    elif what == "show":
        _show(rest)
    else:
        raise InputError(f"nst style is followed by learn or show, got {what!r}: nst style --help")


def _learn(arguments: Sequence[str]) -> str:
    """Writes a card, and returns what is said of it."""
    parser = Parser("style")
    parser.add_argument("--sizes", nargs="+")
    parser.switch("--half")
    given, rest = parser.parse_known_args(arguments)
    named = [*takewhile(lambda word: not word.startswith("-"), rest)]
    if not named:
        raise InputError("no painting was given: nst style learn PAINTINGS -o FILE.style")
    with quiet():
        # Each painting is its own photograph: no other is needed.
        found = [str(each) for each in files.find("style", named, files.STYLE_FOLDER)]
        typed = read(["--content", *found, "--style", *found, *rest[len(named) :]])
        configuration = Configuration(typed, StyleTransfer)
        job = Job(configuration)
        data, problem, values = job.data, job.module.problem, configuration.values
        paintings = [*map(Path, found)]
        wished = runs.FOLDER / f"{paintings[0].stem}{SUFFIX}" if values.output is None else Path(values.output)
        if wished.suffix.lower() != SUFFIX:
            raise InputError(f"{wished}: a style card's name ends with {SUFFIX}")
        if job.trainer.world_size > 1:
            raise InputError(f"a card is learned by one process, got {job.trainer.world_size}: leave out devices")
        images.check_writable(wished.parent)
        scaled = (round(stage.size * data.style_scale) for stage in data.stages)
        sizes = sorted({*(scaled if given.sizes is None else _sizes(",".join(given.sizes)))})
        gallery = Gallery(side=sizes[-1])
        styles = [[Style(each, side, data.upscale, gallery) for side in sizes] for each in paintings]
        kept = _gathered(job.module, Worker.of(job.trainer), styles)
    network, objective = {**problem.backbone.settings}, problem.objective.only(["style"])
    if os.path.isfile(network["weights"]):
        network["weights"] = portable(network["weights"])
    sums = {layer: problem.backbone.fingerprint(layer) for layer in objective.layers}
    shares = {name_of(term): term.share for term in objective.terms}
    card = Card(network, sums, shares, sizes, [each.stem for each in paintings], problem.style_rotations)
    file = runs.untaken(wished, values.overwrite)
    card.write(file, kept, given.half, values.overwrite)
    return f"{file}: {_counted(card, file)}"


def _sizes(text: str) -> list[int]:
    parts = text.strip("[] ").replace(" ", "").split(",")
    if not all(part.isdecimal() and 0 < int(part) <= images.MAX_SIDE for part in parts):
        raise InputError(f"sizes must be whole numbers of pixels up to {images.MAX_SIDE}, as 256,512, got {text!r}")
    return [int(part) for part in parts]


def _gathered(
    module: ImageOptimization, worker: Worker, styles: Sequence[Sequence[Style]]
) -> dict[int, dict[str, Statistic]]:
    """Returns what the style terms keep of all paintings together, by size and by the names that a card has."""
    problem, evaluations = module.problem, Evaluations(module.problem, module.sizing)
    objective = problem.objective.only(["style"])
    names = {term.name: name_of(term) for term in objective.terms}
    problem.backbone.to(worker.device)
    turns = 4 if problem.style_rotations else 1
    parts = parts_of([1.0] * len(styles) * turns)
    found: dict[int, dict[str, Statistic]] = {}
    layout = "{desc}{percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt} pixels, left {remaining}"
    pixels = _checked(styles, problem.backbone.min_side)
    every = 0.2 if STDERR.isatty() else 10.0
    bar = tqdm(total=pixels, file=STDERR, unit_scale=True, bar_format=layout, mininterval=every)
    with bar:
        for number, style in ((number, style) for number, each in enumerate(styles) for style in each):
            bar.set_description(f"{Path(str(style.source)).stem} ({number + 1}/{len(styles)})", refresh=False)
            evaluator = evaluations.evaluator(worker, math.prod(style.size), 1, objective)
            of_size = found.setdefault(style.side, {})
            with torch.no_grad(), worker.context():
                of_turns = evaluations.kept_of(worker.device, style, objective, evaluator)
            for kept, ends in zip(of_turns, parts[number * turns :], strict=False):
                for name, one in ((names[term], one) for term, one in kept.items()):
                    assert isinstance(one, Statistic)  # every style loss adds up
                    # A single one stays what it is, to the bit.
                    part = one if len(parts) == 1 else one.part(*ends)
                    of_size[name] = of_size[name].beside(part) if name in of_size else part
            bar.update(math.prod(style.size))
    if len(parts) == 1:
        return found
    return {side: {name: mixed(one) for name, one in of_size.items()} for side, of_size in found.items()}


def _checked(styles: Sequence[Sequence[Style]], least: int) -> int:
    """Returns the pixels of all paintings, or refuses one before any work is done."""
    for style in (style for each in styles for style in each):
        if is_card(style.source):
            raise InputError(f"{style.source}: is a card, no painting: cards are mixed by nst fit --style_weights")
        height, width = style.size
        if min(height, width) < least:
            raise InputError(f"{style.source}: {width}x{height} px are too small for the layers, which need {least} px")
    return sum(math.prod(style.size) for each in styles for style in each)


def _counted(card: Card, file: Path) -> str:
    paintings = f"{len(card.paintings)} painting{'' if len(card.paintings) == 1 else 's'}"
    return f"{paintings} at {card.listed_sizes}, {file.stat().st_size / 1e6:.1f} MB"


def _show(arguments: Sequence[str]) -> None:
    """Prints what a card holds, and paints a texture from it where a file was named."""
    parser = Parser("style")
    parser.add_argument("card")
    parser.add_argument("-o", "--output")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--steps", type=int, default=100)
    parser.switch("--overwrite")
    given = parser.parse_args(arguments)
    card = Card.read(given.card)
    turned = ", turned as well" if card.rotations else ""
    lines = [
        f"holds      {_counted(card, Path(given.card))}{turned}",
        f"paintings  {', '.join(card.paintings)}",
        f"network    {described(card.network, card.sums)}",
        f"losses     {by_loss(card.terms)}",
    ]
    print(folded("\n".join(lines)))
    if given.output is not None:
        wished = Path(given.output)
        images.format_of(wished)
        images.check_writable(wished.parent)
        texture = images.read(_texture(card, given.size, given.steps)).rgb
        print(images.write(runs.untaken(wished, given.overwrite), texture, overwrite=given.overwrite))


def _texture(card: Card, size: int, steps: int) -> PIL.Image.Image:
    """Returns a square of what the losses that ask for no photograph find in a card, painted from noise."""
    losses: dict[str, dict[str, float]] = {}
    for name, share in card.terms.items():
        loss, _, joined = name.partition("/")
        layers = [layer for layer in joined.split("+") if layer != IMAGE]
        losses.setdefault(loss, {}).update(dict.fromkeys(layers, share / len(layers)))
    alone = {loss: shares for loss, shares in losses.items() if not issubclass(STYLE_LOSSES[loss], Matched)}
    of_noise = {"stages": 3, "content_weight": 0.0, "init": "uniform"}
    canvas, options = torch.full((3, size, size), 0.5), {**card.network, **of_noise, "size": size, "steps": steps}
    painted: PIL.Image.Image = stylize(canvas, card.path, style_loss=alone or losses, **options)
    return painted
