"""What every score has: a name, a place in tables, and a mean over images that leaves out what is undefined."""

from __future__ import annotations

import itertools
import pkgutil
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from nst_lightning import images
from nst_lightning.backbones.surgery import freeze
from nst_lightning.errors import InputError
from nst_lightning.metrics.lab import SHORT_SIDE, as_written, lab, reduced

_NUMBERS = itertools.count()
_Found = TypeVar("_Found")


class Seen:
    """Images as the scores see them: as they would be written, at the working size.

    Args:
        rgb: (N, 3, H, W), sRGB in [0, 1].
    """

    def __init__(self, rgb: Tensor) -> None:
        self.rgb = rgb
        self._found: dict[Callable[[Tensor], Any], Any] = {}

    @cached_property
    def lab(self) -> Tensor:
        """The images in CIELAB, (N, 3, H, W)."""
        return lab(self.rgb)

    def once(self, function: Callable[[Tensor], _Found]) -> _Found:
        """Returns a function of the images in CIELAB, computed once however many scores ask for it."""
        if function not in self._found:
            self._found[function] = function(self.lab)
        found: _Found = self._found[function]
        return found


class Sources:
    """The images that outputs are compared with.

    Args:
        like: Images as many and as large as the outputs are before they are reduced, (N, 3, H, W).
        content: The content images, (N, 3, h, w), sRGB in [0, 1]; None for scores of the style alone.
        styles: For every style of an output, the style images, (N, 3, h, w), likewise.
        short_side: What the outputs' short side is reduced to, in pixels, and these images with it; None for never.

    Raises:
        InputError: If they differ in number or are no images; and where some are asked for that were not given.
    """

    def __init__(self, like: Tensor, content: Tensor | None, styles: Sequence[Tensor], short_side: int | None) -> None:
        self.like = like
        self.short_side = short_side
        self._contents = [] if content is None else [as_written(content)]
        self._styles = [as_written(style) for style in styles]
        for given in (*self._contents, *self._styles):
            check_as_many(like, given)

    @cached_property
    def content(self) -> Seen:
        """The content images, of any size."""
        return self._seen("content", self._contents)[0]

    @property
    def content_in_place(self) -> Seen:
        """The content images, for a comparison by position; raises InputError unless they have the outputs' size."""
        for content in self._contents:
            check_alike(self.like, content)
        return self.content

    @cached_property
    def styles(self) -> list[Seen]:
        """The style images in proportion."""
        return self._seen("style", self._styles)

    @cached_property
    def stretched_styles(self) -> list[Seen]:
        """The style images stretched to the outputs' size, as an optimisation begins with them."""
        size = (self.like.shape[-2], self.like.shape[-1])
        return self._seen("style", [images.resize(style, size).clamp(0, 1) for style in self._styles])

    def _seen(self, name: str, found: Sequence[Tensor]) -> list[Seen]:
        if not found:
            msg = f"this score compares with {name} images: must be given as {name}"
            raise InputError(msg)
        return [Seen(reduced(image, self.like, self.short_side)) for image in found]


class Score(Metric):
    """A number an image, and its mean over images; those whose number is undefined, NaN, are left out and counted.

    A new score is one file of this folder with a subclass: the attributes, `reference` and `values`.

    Args:
        short_side: What the output is reduced to before it is scored, in pixels, and the others with it; None for
            never.
        kwargs: Further ones of `torchmetrics.Metric`.

    Attributes:
        name: Its name in tables, files and curves.
        asked: The name in `--scores` by which it is taken; None for one that is taken where all its parts are.
        parts: The scores that it sums up.
        order: Its place among the scores, which are shown in rising order.
        headline: Whether tables for reading have a column for it; files have all.
        left_out: What to say where `auto` leaves it out; `{names}` stands for what takes it nevertheless.
        total, count, undefined: The sum of the defined numbers, how many they are, and how many images had none.
    """

    name: str
    asked: ClassVar[str | None] = None
    parts: ClassVar[tuple[type[Score], ...]] = ()
    order: ClassVar[int] = 90
    headline: ClassVar[bool] = True
    left_out: ClassVar[str] = ""
    is_differentiable = False  # what is scored is rounded to 8 bits
    full_state_update = False
    plot_lower_bound: float | None = 0.0
    plot_upper_bound: float | None = 1.0

    total: Tensor
    count: Tensor
    undefined: Tensor

    def __init__(self, short_side: int | None = SHORT_SIDE, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.short_side = short_side
        for name in ("total", "count", "undefined"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        # A MetricCollection takes metrics for one whose states have the same names and, after the first batch, values:
        # two scores that are both 0 or undefined there. A state of its own name keeps each by itself.
        self.add_state(f"_metric_{next(_NUMBERS)}", torch.tensor(0.0), dist_reduce_fx="sum")

    @classmethod
    def in_auto(cls) -> bool:
        """Whether `auto` takes it on this machine."""
        return True

    @abstractmethod
    def reference(self, sources: Sources) -> Any:  # noqa: ANN401 - each keeps something else
        """Returns what is kept of the images that outputs are compared with; computed once for many outputs."""

    @abstractmethod
    def values(self, output: Seen, reference: Any) -> dict[str, Tensor]:  # noqa: ANN401 - as above
        """Returns the numbers of outputs by name, (N,) each, NaN where undefined; the score is that called `name`."""

    def numbers(self, *, output: Tensor, content: Tensor | None = None, style: Tensor | None = None) -> Tensor:
        """Returns the number of every image, (N,), NaN where undefined; counts nothing. Arguments as of `update`."""
        seen = Seen(reduced(output, output, self.short_side))
        sources = Sources(output, content, [] if style is None else [style], self.short_side)
        found = self.values(seen, self.reference(sources))
        return found.get(self.name, seen.rgb.new_full((len(output),), torch.nan))

    def update(self, *, output: Tensor, content: Tensor | None = None, style: Tensor | None = None) -> None:
        """Scores outputs against their content and style images, (N, 3, H, W) each, sRGB in [0, 1].

        The styles have the size at which the output was to take their texture. Raises InputError if the images differ
        in number, or in size where they are compared by position.
        """
        values = self.numbers(output=output, content=content, style=style).detach().to(self.total)
        defined = values.isfinite()
        self.total += values.where(defined, 0).sum()
        self.count += defined.sum()
        self.undefined += (~defined).sum()

    def compute(self) -> Tensor:
        """Returns the mean over the images whose number is defined, a scalar; NaN where there was none."""
        return self.total / self.count  # 0 / 0 is NaN

    plot = Metric._plot  # torchmetrics leaves it to each metric whether it can be plotted


class Frozen(nn.Module):
    """A network that scores pictures and leaves no trace in what holds it.

    It has no parameters and no state dict, is in eval mode for good and keeps no graph. It follows to another device,
    but stays in its precision, also under autocast: rounding would show in the score.

    Args:
        network: The network; its parameters and buffers become buffers that are not saved.
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
    """Returns all scores in their order: the direct subclasses of `Score` in the files of this folder."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        import_module(f"{package}.{module.name}")
    found = [score for score in Score.__subclasses__() if score.__module__.startswith(f"{package}.")]
    return tuple(sorted(found, key=lambda score: (score.order, score.name)))


def check_as_many(output: Tensor, reference: Tensor) -> None:
    """Raises InputError where there are not as many outputs, (N, ...), as what they are compared with."""
    if len(output) != len(reference):
        msg = f"{len(output)} outputs cannot be compared with {len(reference)} images: must be as many"
        raise InputError(msg)


def check_alike(output: Tensor, reference: Tensor) -> None:
    """Raises InputError where outputs and what they are compared with, (N, ..., H, W), differ in size or number."""
    (height, width), (its_height, its_width) = output.shape[-2:], reference.shape[-2:]
    if (height, width) != (its_height, its_width):
        msg = f"the output has {width}x{height} px, what it is compared with {its_width}x{its_height} px: must be equal"
        raise InputError(msg)
    check_as_many(output, reference)
