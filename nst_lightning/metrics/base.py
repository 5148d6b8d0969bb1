"""What every score has: a name, a place in tables, and a mean over images that leaves out what is undefined."""

from __future__ import annotations

import inspect
import itertools
import pkgutil
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, get_origin

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from nst_lightning import images
from nst_lightning.backbones.surgery import freeze
from nst_lightning.errors import InputError
from nst_lightning.metrics.lab import SHORT_SIDE, as_written, lab, reduced

_NUMBERS = itertools.count()


class Seen:
    """Images as the scores see them: (N, 3, H, W), sRGB in [0, 1], as they would be written.

    Attributes:
        whole: The images at the size that they have.
        rgb: The images at the working size, see `lab.reduced`.
    """

    def __init__(self, image: Tensor, like: Tensor, short_side: int | None) -> None:
        self.whole = as_written(image)
        self.rgb = reduced(self.whole, like, short_side)
        self._found: dict[Callable[[Tensor], Any], Any] = {}

    @cached_property
    def lab(self) -> Tensor:
        """The images in CIELAB, (N, 3, H, W)."""
        return lab(self.rgb)

    def once(self, function: Callable[[Tensor], Any]) -> Any:  # noqa: ANN401 - the function's own
        """Returns a function of the images in CIELAB, computed once however many scores ask for it."""
        if function not in self._found:
            self._found[function] = function(self.lab)
        return self._found[function]


class Missing(InputError):
    """Images that a score compares with and that were not given."""


class Sources:
    """The images that outputs are compared with; an InputError if they differ in number or are no images.

    Args:
        like: Images as many and as large as the outputs are before they are reduced, (N, 3, H, W).
        content: The content images, (N, 3, h, w), sRGB in [0, 1]; None for scores of the style alone.
        styles: For every style of an output, the style images, (N, 3, h, w), likewise.
        short_side: What the outputs' short side is reduced to, in pixels, and these images with it; None for never.
    """

    def __init__(self, like: Tensor, content: Tensor | None, styles: Sequence[Tensor], short_side: int | None) -> None:
        size = (like.shape[-2], like.shape[-1])
        written = {"content": [] if content is None else [as_written(content)], "style": list(map(as_written, styles))}
        written["stretched style"] = [images.resize(style, size).clamp(0, 1) for style in written["style"]]
        for given in (*written["content"], *written["style"]):
            if len(given) != len(like):
                raise InputError(f"{len(like)} outputs cannot be compared with {len(given)} images: must be as many")
        self._sizes = [f"{each.shape[-1]}x{each.shape[-2]} px" for each in (like, *written["content"])]
        self._seen = {kind: [Seen(each, like, short_side) for each in found] for kind, found in written.items()}

    def of(self, kind: str, in_place: bool = False) -> list[Seen]:
        """Returns `content`, `style` or `stretched style`; an InputError if none, or, in place, of unlike size."""
        if not self._seen[kind]:
            raise Missing(f"this score compares with {kind.split()[-1]} images: must be given as {kind.split()[-1]}")
        if in_place and len(set(self._sizes)) > 1:
            ours, its = self._sizes
            raise InputError(f"the output has {ours}, what it is compared with {its}: must be equal")
        return self._seen[kind]


class Score(Metric):
    """A number an image, and its mean over images; those whose number is undefined, NaN, are left out and counted.

    Args:
        short_side: What the output is reduced to first, in pixels, and the others with it; None for never.
    """

    name: str  # in tables, files and curves
    asked: ClassVar[str | None] = None  # the name in `--scores`; None for one that is taken where all its parts are
    parts: ClassVar[tuple[type[Score], ...]] = ()  # the scores that it sums up
    order: ClassVar[int] = 90  # the place among the scores, which are shown in rising order
    headline: ClassVar[bool] = True  # whether tables for reading have a column for it; files have all
    limit: ClassVar[float | None] = None  # what a finished picture is warned of above; None where nothing is a defect
    remedy: ClassVar[str] = ""  # what is done about it
    is_differentiable = False  # what is scored is rounded to 8 bits
    full_state_update = False
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    total: Tensor  # the sum of the defined numbers
    count: Tensor  # how many they are
    undefined: Tensor  # how many images had none

    def __init__(self, short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.short_side = short_side
        # A MetricCollection takes metrics for one whose states have the same names and, after the first batch, values:
        # two scores that are both 0 or undefined there. A state of its own name keeps each by itself.
        for name in ("total", "count", "undefined", f"_metric_{next(_NUMBERS)}"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    @classmethod
    def left_out(cls) -> str | None:
        """Returns why `auto` leaves it out on this machine, `{names}` for what takes it nevertheless; None if not."""
        return None

    @abstractmethod
    def reference(self, sources: Sources) -> Any:  # noqa: ANN401 - each keeps something else
        """Returns what is kept of the images that outputs are compared with; computed once for many outputs."""

    @abstractmethod
    def values(self, output: Seen, reference: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as above
        """Returns the numbers of outputs by name, (N,) each, NaN where undefined; the score is that called `name`."""

    def numbers(self, *, output: Tensor, content: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        """Returns the number of every image, (N,), NaN where undefined; counts nothing. Arguments as of `update`."""
        seen = Seen(output, output, self.short_side)
        sources = Sources(output, content, [] if style is None else [style], self.short_side)
        return self.values(seen, self.reference(sources))[self.name]

    def update(self, *, output: Tensor, content: Tensor | None = None, style: Tensor | None = None) -> None:
        """Scores outputs against contents, and styles at the size of their texture: (N, 3, H, W), sRGB in [0, 1]."""
        values = self.numbers(output=output, content=content, style=style).detach().to(self.total)
        defined = values.isfinite()
        self.total += values.where(defined, 0).sum()
        self.count += defined.sum()
        self.undefined += (~defined).sum()

    def compute(self) -> Tensor:
        """Returns the mean over the images whose number is defined, a scalar; NaN where there was none."""
        return self.total / self.count  # 0 / 0 is NaN

    plot = Metric._plot  # torchmetrics leaves it to each metric whether it can be plotted


class Comparison(Score):
    """A score that compares an output with one source after the other."""

    against: ClassVar[str] = "style"  # the kind of images that it compares with, see `Sources.of`
    sample: Callable[[Tensor], Any]  # what is compared of outputs in CIELAB
    source_sample: Callable[[Tensor], Any] | None = None  # the same of sources; None where it is `sample`
    merge: ClassVar[Callable[..., Tensor]] = torch.mean  # makes one number of those of several sources

    @abstractmethod
    def compare(self, output: Any, source: Any) -> Tensor:  # noqa: ANN401 - each compares something else
        """Returns the numbers of outputs and a source, (N,), or (N, levels); NaN where undefined."""

    def describe(self, image: Seen) -> Any:  # noqa: ANN401 - as above
        """Returns what is compared of an output."""
        return image.once(self.sample)

    def reference(self, sources: Sources) -> list[Any]:
        """Returns what is compared of every source."""
        images, sample = sources.of(self.against, in_place=self.against == "content"), self.source_sample
        return [self.describe(image) if sample is None else image.once(sample) for image in images]

    def levels(self, output: Seen, reference: Sequence[Any]) -> Tensor:
        """Returns the numbers of all sources together, (N, levels)."""
        described = self.describe(output)
        found = self.merge(torch.stack([self.compare(described, source) for source in reference]), dim=0)
        return found.reshape(len(found), -1)

    def values(self, output: Seen, reference: Sequence[Any]) -> dict[str, Tensor]:
        """Returns the mean over levels."""
        return {self.name: self.levels(output, reference).nanmean(1)}


class Frozen(nn.Module):
    """A network that leaves no trace in what holds it: no parameters, no state dict, no graph, always in eval mode.

    It follows to another device, but stays in its precision, also under autocast: rounding would show in the score.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        freeze(network)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        """Leaves the network in eval mode, whatever is asked for."""
        return super().train(False)

    def forward(self, *images: Tensor, **options: Any) -> Any:  # noqa: ANN401 - each returns something else
        """Returns what the network does."""
        with torch.no_grad(), torch.autocast(images[0].device.type, enabled=False):
            return self.network(*images, **options)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frozen:
        # What `.to(device)` and `.half()` come down to: of `fn` only the device is taken.
        moved: Frozen = super()._apply(lambda tensor: tensor.to(fn(tensor.new_empty(0)).device), recurse)  # type: ignore[no-untyped-call]
        return moved


@cache
def known() -> tuple[type[Score], ...]:
    """Returns all scores in their order: the subclasses of `Score` in the files of this folder that have a name."""
    package = __name__.rpartition(".")[0]
    modules = [f"{package}.{module.name}" for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    kinds = {kind for name in modules for _, kind in inspect.getmembers(import_module(name), inspect.isclass)}
    # Python 3.10 takes list[int] for a class, which it then cannot compare.
    found = [kind for kind in kinds if get_origin(kind) is None and issubclass(kind, Score) and hasattr(kind, "name")]
    return tuple(sorted(found, key=lambda score: (score.order, score.name)))
