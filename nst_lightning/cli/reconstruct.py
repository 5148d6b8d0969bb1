"""`nst reconstruct`: an image rebuilt from single layers, and the pictures in a row."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from torchmetrics.functional.image import peak_signal_noise_ratio

from nst_lightning import api, figures, files, images, runs
from nst_lightning.backbones import spec_of
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import Configuration, Job, names_of
from nst_lightning.cli.registry import Parser
from nst_lightning.errors import InputError
from nst_lightning.modules import ImageOptimization, Reconstruction

HELP = """
usage: nst reconstruct IMAGE [--from content|style] [--layers LAYERS] [options]

Rebuilds an image from noise, once for each layer, and puts the pictures in a row.

  IMAGE                    a file; a name is also looked up in data/content-images
  --from content|style     what is kept of it: features at their places, or Gram matrices [content]
  --layers LAYERS          e.g. relu1_2,relu4_2; from style, each sees those before it too [style layers]
  --output FOLDER          [data/output-images/<image>_from_<content or style>]
  --size PIXELS, --steps N long side [256], steps for each picture [200]
  --stages N               coarse-to-fine sizes [2 from the content, 1 from the style]
  --backbone, --weights, --tv_weight, --init, --optimizer, --seed, --save_every, --video, --overwrite: as in nst fit;
                           the start is uniform noise and there is no smoothing unless told otherwise
"""


def main(arguments: Sequence[str]) -> None:
    """Rebuilds an image from noise, a picture a layer, and writes them and the strip."""
    parser = Parser("reconstruct", "--image", "--layers")
    parser.add_argument("--from", dest="source", choices=["content", "style"], default="content")
    given, rest = parser.parse_known_args(arguments)
    image, *more = files.find("image", given.image, files.CONTENT_FOLDER)
    if more:
        raise InputError(f"image {given.image} stands for {1 + len(more)} files; name one")
    of_data = {"content": str(image), "style": str(image), **api.RECONSTRUCTION[given.source]}
    defaults = {f"data.{name}": value for name, value in of_data.items()}
    defaults |= {"model.source": given.source, "model.layers": given.layers or "", "scores": "off"}
    with api.quiet():
        configuration = Configuration(read(rest), Reconstruction, defaults)
        spec = spec_of(configuration.values.model.backbone)
        layers = spec.style_layers if given.layers is None else names_of(given.layers)
        wished = configuration.values.output, [f"{Path(str(image)).stem}_from_{given.source}"]
        with runs.claimed(*wished, configuration.values.overwrite) as (run, _):
            _rebuild(configuration, Path(str(image)), layers, given.source, run.folder)


def _rebuild(configuration: Configuration, image: Path, layers: Sequence[str], source: str, folder: Path) -> None:
    values = configuration.values

    def run(layer: str, seen: list[str]) -> ImageOptimization:
        values.output, values.model.layers = str(folder / f"{layer}.png"), seen
        with ExitStack() as claims:
            return Job(configuration, claims).fit()

    original = images.read(image).rgb
    labels, pictures = ["original"], []
    for layer, picture in api.rebuilt(layers, source, run):
        original = images.resize(original, (picture.height, picture.width)).clamp(0, 1)
        pictures.append(picture)
        if source == "content":  # the style keeps no places: what is alike need not be near
            ratio = peak_signal_noise_ratio(images.read(picture).rgb, original, data_range=1.0).item()
            print(f"{layer}: PSNR {ratio:.2f} dB")
            layer = f"{layer}  {ratio:.1f} dB"
        labels.append(layer)
    row, title = [images.to_pil(original), *pictures], f"{image.stem} from {source}"
    strip = figures.grid([row], [""], labels, title, "", width=original.shape[-1])
    print(images.write(folder / "strip.png", images.read(strip).rgb, overwrite=values.overwrite))
