"""The objective: a weighted sum of losses on named layers, which the optimiser brings down."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TypeAlias

import torch
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.losses.base import (
    IMAGE,
    Additive,
    Features,
    Global,
    Loss,
    Matched,
    Pointwise,
    Source,
    Statistic,
    Target,
)

Values: TypeAlias = Mapping[str, Tensor]  # every term's value, not weighted, (N,) each, by the term's name
Kept: TypeAlias = Statistic | Target
"""What is kept of one source image: the statistic of an additive loss, which is still to be finished, or the target."""


@dataclass(frozen=True)
class Term:
    """One loss on named layers."""

    group: str  # what it counts towards, with whose weight: content, style, tv or temporal
    layers: tuple[str, ...]  # what the loss reads, in its order; `image` stands for the pixels
    loss: Loss
    share: float  # its part of the group's weight, above 0
    relative: bool = False  # whether its value is weighed against the size of its target, see `Loss.size`
    label: str = ""  # which of several losses of the group it is of
    region: int = 0  # from 1, where each region has terms of its own; 0 is all of the image, as its content counts

    @property
    def name(self) -> str:
        """The term's name in curves and targets, e.g. `style/relu3_1`."""
        layers = () if self.loss.joint else self.layers
        region = f"region{self.region}" if self.region > 1 else ""
        return "/".join(filter(None, [self.group, region, self.label, *layers]))

    @property
    def query_name(self) -> str:
        """The name in targets of what a matched loss asks with."""
        return f"{self.name}, asked"

    def of(self, features: Mapping[str, Features]) -> list[Features]:
        """Returns the features of the term's layers, with the weights of its region."""
        return [features[layer].in_region(self.region) for layer in self.layers]


class Objective:
    """The weighted sum of terms of unlike names: what the optimiser brings down, Gatys et al. (2016), equation 7.

    The weights are not part of it: each image has its own for every group, see `total`.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        self.terms: Sequence[Term] = tuple(terms)
        names = [term.name for term in self.terms]
        if len(set(names)) != len(names):
            raise InputError(f"a layer stands twice among the terms: {', '.join(names)}")

    @property
    def layers(self) -> tuple[str, ...]:
        """The backbone's layers that the terms read, in the order of their first use."""
        read = dict.fromkeys(layer for term in self.terms for layer in term.layers)
        return tuple(layer for layer in read if layer != IMAGE)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the terms, in the order of their first."""
        return tuple(dict.fromkeys(term.group for term in self.terms))

    @property
    def sources(self) -> set[Source]:
        """The images that the terms compare with, or ask with."""
        asked = {term.loss.query for term in self.terms if isinstance(term.loss, Matched)}
        return asked | {term.loss.source for term in self.terms if term.loss.source is not None}

    def only(self, groups: Collection[str]) -> Objective:
        """Returns the objective of some groups' terms."""
        return Objective(term for term in self.terms if term.group in groups)

    def in_regions(self, count: int) -> Objective:
        """Returns the objective that compares with a style in each of so many regions; of none, itself.

        Gatys et al. (2017), *Controlling Perceptual Factors in Neural Style Transfer*, equation 7.
        """
        of_terms = [range(1, count + 1) if term.loss.source == "style" and count > 0 else [0] for term in self.terms]
        pairs = zip(self.terms, of_terms, strict=True)
        return Objective(replace(term, region=number) for term, numbers in pairs for number in numbers)

    def at(self, factors: Mapping[str, float]) -> Objective:
        """Returns the objective whose weights are multiplied by those of groups and losses; without what weighs 0."""
        shares = [term.share * factors.get(term.group, 1.0) * factors.get(term.label, 1.0) for term in self.terms]
        pairs = zip(self.terms, shares, strict=True)
        return Objective(replace(term, share=share) for term, share in pairs if share > 0)

    def kept(self, source: Source, features: Mapping[str, Features], draw: int) -> dict[str, Kept]:
        """Returns what the terms that compare with a source image, or ask with it, keep of its features, by name."""
        found = {term.name: _kept(term, features, draw) for term in self.terms if term.loss.source == source}
        for term in self.terms:
            if isinstance(term.loss, Matched) and term.loss.query == source:
                found[term.query_name] = term.loss.asked(term.of(features), draw)
        return found

    def targets(self, kept: Sequence[Mapping[str, Kept]], weights: Sequence[float]) -> dict[str, Target]:
        """Finishes what was kept of each image of one source, merged by their weights; not every loss can merge."""
        of_terms = self.terms_of(kept[0])
        return {name: _target(term, [each[name] for each in kept], weights) for name, term in of_terms.items()}

    def terms_of(self, kept: Collection[str]) -> dict[str, Term]:
        """Returns the term that each name is of under which something is kept."""
        return {name: term for term in self.terms for name in (term.name, term.query_name) if name in kept}

    def matched(self, targets: Mapping[str, Target]) -> dict[str, Target]:
        """Returns targets of all images with those of matched losses made of the two that they need."""
        found = dict(targets)
        for term in self.terms:
            if isinstance(term.loss, Matched):
                found[term.name] = term.loss.matched(found.pop(term.query_name), found[term.name])
        return found

    def statistics(
        self, features: Mapping[str, Features], targets: Mapping[str, Target], draw: int
    ) -> dict[str, Statistic]:
        """Returns the statistics of the terms that add up, of the output or of a tile with the targets' tile."""
        found = {}
        for term in self.terms:
            own = term.of(features)
            if isinstance(term.loss, Additive):
                found[term.name] = term.loss.statistic(own, draw)
            elif isinstance(term.loss, Pointwise):
                pairs = zip(targets[term.name], own, strict=True)
                maps = [Features(values, layer.size, layer.corner) for values, layer in pairs]
                found[term.name] = term.loss.statistic(own, maps, draw)
        return found

    def compared(
        self, statistics: Mapping[str, Statistic], targets: Mapping[str, Target], draw: int
    ) -> dict[str, Tensor]:
        """Returns the values of the terms that statistics of one draw are of, given those of the whole image."""
        values = {}
        for name, loss in ((term.name, term.loss) for term in self.terms):
            if isinstance(loss, Additive):
                values[name] = loss.compare(statistics[name], targets[name], draw)
            elif isinstance(loss, Pointwise):
                values[name] = loss.compare(statistics[name])
        return values

    def values(self, features: Mapping[str, Features], targets: Mapping[str, Target], draw: int) -> dict[str, Tensor]:
        """Returns every term's value, (N,) each, of the features of whole images."""
        found = self.compared(self.statistics(features, targets, draw), targets, draw)
        return found | {
            term.name: term.loss.compare(term.of(features), targets.get(term.name, ()))
            for term in self.terms
            if isinstance(term.loss, Global)
        }

    def weights(self, targets: Mapping[str, Target], groups: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns every term's weight, (N,), given those of the groups; a relative one's over its target's size."""
        found = {}
        for term in self.terms:
            size = term.loss.size(targets[term.name]) if term.relative and term.name in targets else None
            weight = term.share * groups[term.group]
            found[term.name] = weight if size is None else weight / size.clamp(min=torch.finfo(size.dtype).tiny)
        return found

    def total(self, values: Values, weights: Mapping[str, Tensor]) -> Tensor:
        """Returns the weighted sum, (N,): the loss of each image, given its weights by term, (N,) each."""
        # One after the other: terms of weight 0, which a companion in the batch may bring, then leave no rounding.
        return reduce(torch.add, self._weighted(values, weights).values())

    def contributions(self, values: Values, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the weighted values summed by group and in `total`, (N,) each, for curves."""
        weighted = self._weighted(values, weights)
        by_group = {group: [weighted[term.name] for term in self.terms if term.group == group] for group in self.groups}
        sums = {group: reduce(torch.add, parts) for group, parts in by_group.items()}
        return {"total": reduce(torch.add, weighted.values()), **sums}

    def _weighted(self, values: Values, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {term.name: weights[term.name] * values[term.name] for term in self.terms}


def _kept(term: Term, features: Mapping[str, Features], draw: int) -> Kept:
    own = term.of(features)
    if isinstance(term.loss, Additive):
        return term.loss.kept(own, draw)
    if isinstance(term.loss, Pointwise):
        return term.loss.maps(own)
    assert isinstance(term.loss, Global)
    return term.loss.target(own)


def _target(term: Term, kept: Sequence[Kept], weights: Sequence[float]) -> Target:
    statistics = [each for each in kept if isinstance(each, Statistic)]
    if isinstance(term.loss, Additive):
        return term.loss.target(Statistic.merged(statistics, weights))
    if len(kept) > 1:
        msg = f"{type(term.loss).__name__} cannot merge {len(kept)} {term.loss.source} images: give one"
        raise InputError(f"{term.name}: {msg}")
    (target,) = kept
    assert not isinstance(target, Statistic)
    return target
