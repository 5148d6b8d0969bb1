"""Style cards: what style losses keep of paintings at some sizes, in a file that stands where a painting may."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nst_lightning.backbones import Backbone
from nst_lightning.errors import InputError
from nst_lightning.losses import IMAGE, STYLE_LOSSES, Statistic, Term
from nst_lightning.runs import regular, replacing

SUFFIX = ".style"
_KEY = "nst_lightning_style_1"  # of the text in the file's header; its number is that of the layout
_NEAR = math.sqrt(2)  # half of the way to twice the size
_NAMES = {kind: name for name, kind in STYLE_LOSSES.items()}


def is_card(source: object) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a style is named that is a card, by its suffix."""
    return isinstance(source, (str, os.PathLike)) and Path(source).suffix.lower() == SUFFIX


def name_of(term: Term) -> str:
    """Returns what a card calls what a term of a style loss keeps, e.g. `gram/relu1_1`."""
    return f"{_NAMES[type(term.loss)]}/{'+'.join(term.layers)}"


@dataclass(frozen=True)
class Card:
    """What a card says of itself; its statistics stay in the file until they are asked for.

    Attributes:
        network: The options that make the network, see `Backbone.settings`.
        sums: The fingerprints of the layers, see `Backbone.fingerprint`.
        terms: The parts of the style's weight by the names of `name_of`.
        sizes: The long sides of the paintings in pixels, rising.
        paintings: The names of the paintings.
        rotations: Whether they were turned by 90, 180 and 270 degrees as well.
        path: The file; empty before it is written.
    """

    network: Mapping[str, Any]
    sums: Mapping[str, str]
    terms: Mapping[str, float]
    sizes: Sequence[int]
    paintings: Sequence[str]
    rotations: bool = False
    path: str = ""

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Card:
        """Reads what a card says of itself.

        Raises:
            InputError: If it cannot be read, is no card, or is damaged.
        """
        try:
            regular(Path(path)).open("rb").close()  # which says why it cannot be
            with safe_open(path, "pt") as file:
                card = cls(**json.loads((file.metadata() or {})[_KEY]), path=os.fspath(path))
            assert card.sizes and all(isinstance(size, int) and size > 0 for size in card.sizes)
            assert all(isinstance(each, dict) for each in (card.network, card.sums, card.terms))
            assert all(name.partition("/")[0] in STYLE_LOSSES for name in card.terms)
            assert all(isinstance(name, str) for name in card.paintings)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError, AssertionError) as error:
            reason = (isinstance(error, OSError) and error.strerror) or "foreign, damaged or truncated"
            raise InputError(f"{path}: is no style card ({reason}); expected a file of nst style learn") from error
        return card

    def write(self, path: Path, found: Mapping[int, Mapping[str, Statistic]], half: bool, overwrite: bool) -> None:
        """Writes a card with the statistics of its terms by size; with `half`, samples in float16 where they fit."""
        tensors: dict[str, Tensor] = {}
        for size, of_terms in found.items():
            for term, statistic in of_terms.items():
                distinct = {name: _distinct(each, half) for name, each in statistic.samples.items()}
                samples, places = ({name: each[kind] for name, each in distinct.items()} for kind in (0, 1))
                parts = {"sums": statistic.sums, "weight": {"": statistic.weight}, "samples": samples, "places": places}
                tensors |= {
                    f"{size}/{term}/{kind}/{name}": each.cpu().contiguous()
                    for kind, of_kind in parts.items()
                    for name, each in of_kind.items()
                }
        told = {name: value for name, value in asdict(self).items() if name != "path"}
        with replacing(path, overwrite) as file:
            file.write_bytes(save(tensors, {_KEY: json.dumps(told)}))

    @property
    def listed_sizes(self) -> str:
        """The sizes in words, e.g. `256, 512 px`."""
        return f"{', '.join(map(str, self.sizes))} px"

    def nearest(self, side: int) -> int:
        """Returns the size that a long side of so many pixels is nearest to, as their ratio goes."""
        return min(self.sizes, key=lambda size: abs(math.log(size / side)))

    def is_near(self, side: int) -> bool:
        """Whether the size nearest to a side is at most 1.4 times as large or as small."""
        return max(self.nearest(side) / side, side / self.nearest(side)) <= _NEAR

    def kept(self, side: int, terms: Iterable[Term], device: torch.device) -> dict[str, Statistic]:
        """Returns what terms keep, by their names, of the paintings of the size nearest to a side in pixels.

        Raises:
            InputError: If the file has not all that it says.
        """
        try:
            with safe_open(self.path, "pt") as file:
                names = [*file.keys()]

                def of(begin: str) -> dict[str, Tensor]:
                    own = (name for name in names if name.startswith(begin))
                    return {name[len(begin) :]: file.get_tensor(name).to(device) for name in own}

                def statistic(begin: str) -> Statistic:
                    places = of(f"{begin}/places/")
                    drawn = {name: each[..., places[name]] for name, each in of(f"{begin}/samples/").items()}
                    samples = {
                        name: each.float() if each.dtype == torch.float16 else each for name, each in drawn.items()
                    }
                    return Statistic(of(f"{begin}/sums/"), of(f"{begin}/weight/")[""], samples)

                return {term.name: statistic(f"{self.nearest(side)}/{name_of(term)}") for term in terms}
        except (OSError, SafetensorError, LookupError) as error:
            raise InputError(f"{self.path}: is damaged: learn it again with nst style learn") from error

    def check(self, backbone: Backbone, terms: Sequence[Term], turned: bool) -> None:
        """Raises an InputError unless it holds what terms of a network keep, and of turned paintings if asked for."""
        layers = dict.fromkeys(layer for term in terms for layer in term.layers if layer != IMAGE)
        sums = {layer: backbone.fingerprint(layer) for layer in layers}
        alike = all(self.network.get(name) == backbone.settings[name] for name in ("backbone", "pooling", "border"))
        if not alike or any(sums[layer] != self.sums.get(layer, sums[layer]) for layer in layers):
            ours, its = described(backbone.settings, sums), described(self.network, self.sums)
            raise InputError(f"{self.path}: is of the network {its}; this run has {ours}: learn a card of it")
        if missing := [name for term in terms if (name := name_of(term)) not in self.terms]:
            msg = f"{self.path}: holds {by_loss(self.terms)}; this run compares {by_loss(missing)} too"
            raise InputError(f"{msg}: leave out style losses or layers, or learn a card with them")
        if turned and not self.rotations:
            raise InputError(f"{self.path}: style_rotations: it was not learned with them: leave them out")


def by_loss(names: Iterable[str]) -> str:
    """Returns what terms are called in words, e.g. `gram (relu1_1, relu2_1), nearest (relu3_1)`."""
    layers: dict[str, list[str]] = {}
    for loss, _, joined in (name.partition("/") for name in names):
        layers.setdefault(loss, []).append(joined)
    return ", ".join(f"{loss} ({', '.join(each)})" for loss, each in layers.items())


def described(network: Mapping[str, Any], sums: Mapping[str, str]) -> str:
    """Returns a network in words, with the sum of its deepest layer that is read."""
    own = [str(network.get(name)) for name in ("weights", "pooling", "border")]
    own += [name for name in ("pixel_range", "normalized") if network.get(name)]
    return f"{network.get('backbone')} ({', '.join([*own, *[*sums.values()][-1:]])})"


def _distinct(samples: Tensor, half: bool) -> tuple[Tensor, Tensor]:
    """Returns the samples of (1, C, K) that are there once, with `half` in float16 where they fit, and which each is.

    Of a small painting, some are drawn again and again.
    """
    if half and bool((halved := samples.half()).isfinite().all()):
        samples = halved
    directions = torch.rand(samples.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, places = torch.unique((samples[0].cpu().double() * directions[:, None]).sum(dim=0), return_inverse=True)
    first = torch.empty(int(places.max()) + 1, dtype=torch.int64).scatter_(0, places, torch.arange(len(places)))
    found = samples[..., first.to(samples.device)]
    if not torch.equal(found[..., places.to(samples.device)], samples):  # two that project to the same
        found, places = samples, torch.arange(len(places))
    return found, places.int()


def mixed(statistic: Statistic) -> Statistic:
    """Returns a statistic with its samples in no order, so that any part of them is of all paintings."""
    samples = {}
    for name, each in statistic.samples.items():
        order = torch.randperm(each.shape[2], generator=torch.Generator().manual_seed(0))
        samples[name] = each[..., order.to(each.device)]
    return Statistic(statistic.sums, statistic.weight, samples)
