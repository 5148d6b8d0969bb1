"""What every score does as a torchmetrics Metric. A new one is checked once it stands in CASES."""

from __future__ import annotations

import copy
import doctest
import math
import pickle
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from matplotlib import pyplot
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.functional.image.lpips import _NoTrainLpips

import nst_lightning.metrics
from nst_lightning.errors import InputError
from nst_lightning.metrics import perceptual
from nst_lightning.metrics.base import Frozen, Score, known
from nst_lightning.metrics.defects import Blotches, Border, Clipped, Grid
from nst_lightning.metrics.features import FeatureDistance
from nst_lightning.metrics.leak import Leak
from nst_lightning.metrics.outline import Outline
from nst_lightning.metrics.overall import Overall
from nst_lightning.metrics.palette import Palette, PaletteDistance
from nst_lightning.metrics.perceptual import Lpips, Net
from nst_lightning.metrics.similarity import SHORTEST, Similarity
from nst_lightning.metrics.texture import Texture, TextureDistance
from tests.metrics.test_defects import checkered, framed, in_8_bits
from tests.metrics.test_outline import picture
from tests.processes import in_two, one_of_two

NUMBER, SIZE = 5, (40, 56)
LARGER = (SHORTEST, SHORTEST + 16)  # for the score that smaller ones have no number of


def _images(size: tuple[int, int]) -> dict[str, Tensor]:
    """Outputs that are a little of their content and of their fainter style, another share in each."""
    content, style = (in_8_bits(picture(seed, size, NUMBER) * contrast) for seed, contrast in ((1, 1), (2, 0.6)))
    share = torch.linspace(0.1, 0.5, NUMBER)[:, None, None, None]
    return {"output": in_8_bits(share * content + (1 - share) * style), "content": content, "style": style}


def _spoilt(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs with a frame, a checkerboard, clipped values and blotches, another share of each in every one."""
    share = torch.linspace(0.1, 0.5, NUMBER)[:, None, None, None]
    return {**given, "output": in_8_bits(framed(checkered(given["output"], 4, share / 10), 3, share) * 1.5 - share)}


IMAGES, LARGER_IMAGES = _images(SIZE), _images(LARGER)
SPOILT_IMAGES = _spoilt(LARGER_IMAGES)
GREY = torch.full((2, 3, *SIZE), 0.5)
SMALL = torch.full((2, 3, 32, 32), 0.5)
TINY = torch.full((2, 3, 8, 8), 0.5)


class Case(NamedTuple):
    """A score, and what its `update` takes: five images that have a number, and two that have none, if that can be."""

    metric: Callable[[], Score]
    given: dict[str, Tensor]
    undefined: dict[str, Tensor] | None

    @property
    def name(self) -> str:
        return str(getattr(self.metric, "func", self.metric).__name__)


def given(*names: str, images: dict[str, Tensor] = IMAGES) -> dict[str, Tensor]:
    return {name: images[name] for name in names}


def part(images: dict[str, Tensor], start: int, end: int) -> dict[str, Tensor]:
    return {name: image[start:end] for name, image in images.items()}


def lpips() -> Lpips:
    """On a network of random weights, the same ones every time."""

    def network(net: Net) -> Frozen:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return Frozen(_NoTrainLpips(net=net, pnet_rand=True))

    with patch.object(perceptual, "lpips_network", network):
        return Lpips("squeeze")


CASES = [
    Case(Outline, given("output", "content"), {"output": IMAGES["output"][:2], "content": GREY}),
    Case(Leak, given("output", "style"), {"output": IMAGES["output"][:2], "style": GREY}),
    Case(Similarity, given("output", "content", images=LARGER_IMAGES), {"output": SMALL, "content": SMALL}),
    Case(PaletteDistance, given("output", "style"), None),
    Case(Palette, given("output", "style", "content"), {"output": SMALL, "style": GREY, "content": SMALL}),
    Case(TextureDistance, given("output", "style"), {"output": SMALL, "style": GREY}),
    Case(Texture, given("output", "style", "content"), {"output": SMALL, "style": GREY, "content": SMALL}),
    Case(Overall, given("output", "style", "content"), {**part(given("output", "style"), 0, 2), "content": GREY}),
    Case(
        partial(FeatureDistance, "vgg16", ("relu2_1", "pool3")),
        given("output", "style"),
        {"output": TINY[..., :7], "style": TINY},
    ),
    Case(lpips, given("output", "content"), {"output": TINY, "content": TINY}),
    *(
        Case(kind, given(*names, images=SPOILT_IMAGES), dict.fromkeys(names, SMALL))
        for kind, *names in (
            (Grid, "output", "content", "style"),
            (Border, "output", "content"),
            (Clipped, "output", "content", "style"),
            (Blotches, "output", "content", "style"),
        )
    ),
]


def of(case: Case, *batches: dict[str, Tensor]) -> Tensor:
    """What a new metric finds of some batches."""
    metric = case.metric()
    for batch in batches:
        metric.update(**batch)
    return metric.compute()


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


def test_it_is_the_mean_over_images_however_they_are_batched(case: Case) -> None:
    alone = torch.stack([of(case, part(case.given, i, i + 1)) for i in range(NUMBER)])
    assert len(set(alone.tolist())) == NUMBER  # else much below would be true of any mean
    assert alone.isfinite().all()
    for batches in ([case.given], [part(case.given, 0, 1), part(case.given, 1, NUMBER)]):
        torch.testing.assert_close(of(case, *batches), alone.mean())


def test_forward_returns_the_batchs_own(case: Case) -> None:
    metric = case.metric()
    first, second = part(case.given, 0, 2), part(case.given, 2, NUMBER)
    torch.testing.assert_close(metric(**first), of(case, first))
    torch.testing.assert_close(metric(**second), of(case, second))
    torch.testing.assert_close(metric.compute(), of(case, case.given))


def test_it_can_be_updated_after_it_was_computed(case: Case) -> None:
    metric = case.metric()
    metric.update(**part(case.given, 0, 2))
    before = metric.compute()
    metric.update(**part(case.given, 2, NUMBER))
    torch.testing.assert_close(metric.compute(), of(case, case.given))
    assert metric.compute() != before


def test_reset_forgets_all(case: Case) -> None:
    metric = case.metric()
    metric.update(**part(case.given, 0, 2))
    if case.undefined is not None:
        metric.update(**case.undefined)
    metric.reset()
    assert [metric.total.item(), metric.count.item(), metric.undefined.item()] == [0, 0, 0]
    metric.update(**part(case.given, 2, NUMBER))
    torch.testing.assert_close(metric.compute(), of(case, part(case.given, 2, NUMBER)))


def test_images_without_a_number_are_counted_and_left_out(case: Case) -> None:
    metric = case.metric()
    if case.undefined is None:
        return
    metric.update(**case.undefined)
    assert metric.compute().isnan()
    metric.update(**case.given)
    assert metric.undefined.item() == 2
    assert metric.count.item() == NUMBER
    torch.testing.assert_close(metric.compute(), of(case, case.given))


def test_copies_are_apart(case: Case) -> None:
    metric = case.metric()
    metric.update(**part(case.given, 0, 2))
    kept = metric.compute()
    for copied in (metric.clone(), copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert torch.equal(copied.compute(), kept)
        copied.update(**part(case.given, 2, NUMBER))
        torch.testing.assert_close(copied.compute(), of(case, case.given))
    assert torch.equal(metric.compute(), kept)


def test_checkpoints_hold_nothing_of_it(case: Case) -> None:
    metric = case.metric()
    metric.update(**part(case.given, 0, 1))
    assert metric.state_dict() == {}
    assert not list(metric.parameters())


def test_no_graph_is_held(case: Case) -> None:
    metric = case.metric()
    metric.update(**{name: image[:1].clone().requires_grad_() for name, image in case.given.items()})
    assert not any(state.requires_grad for state in (metric.total, metric.count, metric.undefined))
    assert not metric.compute().requires_grad


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.bfloat16, 0.1), (torch.float64, 1e-6)], ids=str
)
def test_other_types_are_taken(dtype: torch.dtype, tolerance: float, case: Case) -> None:
    images = part(case.given, 0, 2)
    found = of(case, {name: image.to(dtype) for name, image in images.items()})
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(of(case, images).item(), abs=tolerance, rel=tolerance)


def test_its_properties_are_set(case: Case) -> None:
    metric = case.metric()
    assert metric.higher_is_better in (True, False)
    assert metric.is_differentiable is False
    assert metric.full_state_update is False
    with pytest.raises(RuntimeError, match="Can't change const `higher_is_better`"):
        metric.higher_is_better = None


def test_it_is_plotted(case: Case) -> None:
    pyplot.switch_backend("Agg")
    metric = case.metric()
    values = [metric(**part(case.given, i, i + 1)) for i in range(2)]
    for shown in (None, values[0], values):
        figure, _ = metric.plot(shown)
        assert len(figure.axes) == 1
        assert figure.axes[0].lines
        pyplot.close(figure)
    figure, axes = pyplot.subplots()
    assert metric.plot(ax=axes)[1] is axes
    pyplot.close(figure)


def test_a_collection_gives_each_its_images() -> None:
    collection = MetricCollection({case.name: case.metric() for case in CASES})
    for start, end in ((0, 2), (2, NUMBER)):
        collection(**part(IMAGES, start, end))
    found = collection.compute()
    assert set(found) == {case.name for case in CASES}
    for case in CASES:
        expected = of(case, given(*case.given))
        assert expected.isfinite() or case.given["output"] is not IMAGES["output"]  # these are too small for it
        torch.testing.assert_close(found[case.name], expected, equal_nan=True)


@pytest.mark.parametrize(
    ("names", "first", "expected"),
    [
        (("Outline", "Leak", "Overall"), {"output": IMAGES["output"][:2], "content": GREY, "style": GREY}, math.nan),
        (("Palette", "Texture", "Overall"), {**IMAGES, "output": IMAGES["content"]}, 0.0),
    ],
    ids=["undefined", "0"],
)
def test_a_collection_keeps_scores_apart_that_begin_alike(
    names: Sequence[str], first: dict[str, Tensor], expected: float
) -> None:
    # Which of its metrics share their states, a collection settles after the first batch, by what is in them.
    cases = [case for case in CASES if case.name in names]
    collection = MetricCollection({case.name: case.metric() for case in cases})
    collection.update(**first)
    assert [value.item() for value in collection.compute().values()] == pytest.approx([expected] * 3, nan_ok=True)
    collection.update(**IMAGES)
    assert len(collection.compute_groups) == 3
    found = collection.compute()
    for case in cases:
        alone = of(case, {name: first[name] for name in case.given}, case.given)
        torch.testing.assert_close(found[case.name], alone)
    assert len({value.item() for value in found.values()}) == 3


def update_on_a_rank(rank: int, folder: Path) -> None:
    with one_of_two(rank, folder):
        found = {}
        for case in CASES:
            metric = case.metric()
            metric.update(**part(case.given, *((0, 4), (4, NUMBER))[rank]))
            if rank == 1 and case.undefined is not None:
                metric.update(**case.undefined)
            found[case.name] = metric.compute()
        torch.save(found, folder / f"{rank}.pt")


def test_two_processes_with_unequal_shares_find_what_one_does(tmp_path: Path) -> None:
    in_two(update_on_a_rank, tmp_path)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for case in CASES:
        name = case.name
        assert torch.equal(found[0][name], found[1][name]), name
        torch.testing.assert_close(found[0][name], of(case, case.given))


def test_all_scores_are_known_in_their_order_and_checked_here() -> None:
    assert [score.__name__ for score in known()] == [
        *("Outline", "Similarity", "Palette", "PaletteDistance", "Texture", "TextureDistance"),
        *("Leak", "Lpips", "FeatureDistance", "Grid", "Border", "Clipped", "Blotches", "Overall"),
    ]
    assert {type(case.metric()) for case in CASES} == set(known())
    assert len({score.name for score in known()}) == len(CASES)


def test_an_image_that_was_not_given_is_named() -> None:
    for metric, missing in ((Outline(), "content"), (Leak(), "style"), (Texture(), "style")):
        with pytest.raises(
            InputError, match=f"^this score compares with {missing} images: must be given as {missing}$"
        ):
            metric.update(output=GREY)


def square() -> Tensor:
    image = torch.zeros(1, 3, 64, 64)
    image[..., 16:48, 16:48] = 1
    return image


def noise(side: int) -> Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))


BLACK, WHITE, NOISE = torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 48, 24), noise(64)
QUARTER = torch.cat([torch.ones(1, 3, 32, 8), torch.zeros(1, 3, 32, 24)], dim=-1)


@pytest.mark.parametrize(
    ("metric", "images", "expected"),
    [
        (Outline, {"output": square(), "content": square()}, 1),
        (Outline, {"output": square() / 2, "content": square()}, 0.5358),  # grey
        (Similarity, {"output": noise(200), "content": noise(200)}, 1),
        (Similarity, {"output": 1 - noise(200), "content": noise(200)}, 0),
        (Leak, {"output": square() / 10, "style": square()}, 1),
        (Leak, {"output": torch.zeros(1, 3, 64, 64), "style": square()}, 0),
        (PaletteDistance, {"output": BLACK, "style": WHITE}, 100),  # the difference of their lightness
        (Palette, {"output": QUARTER, "style": WHITE, "content": BLACK}, 0.25),
        (TextureDistance, {"output": torch.zeros(1, 3, 64, 64), "style": NOISE}, 2),
        (Texture, {"output": NOISE, "style": NOISE**3, "content": NOISE}, 0),
        (Texture, {"output": NOISE**3, "style": NOISE**3, "content": NOISE}, 1),
        (Overall, {"output": square(), "content": square(), "style": NOISE}, 0),  # nothing of the style
    ],
)
def test_simple_pictures_have_the_scores_they_must(
    metric: type[Score], images: dict[str, Tensor], expected: float
) -> None:
    assert metric()(**images).item() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_a_mirrored_texture_is_nearly_the_same() -> None:
    assert TextureDistance()(output=NOISE.flip(-1), style=NOISE) < 0.1


def test_the_readmes_example_gives_what_it_says() -> None:
    readme = Path(nst_lightning.metrics.__path__[0]) / "README.md"
    failed, tried = doctest.testfile(str(readme), module_relative=False, encoding="utf-8")
    assert failed == 0
    assert tried > 5


def test_a_collection_keeps_metrics_of_one_class_apart() -> None:
    sizes = MetricCollection({str(side): TextureDistance(side) for side in (None, 16, 32)})
    sizes.update(output=IMAGES["style"], style=IMAGES["style"])
    sizes.update(output=IMAGES["output"], style=IMAGES["style"])
    assert len({value.item() for value in sizes.compute().values()}) == 3
