"""Defects: independent formulas in float64, and pictures of which what is wrong is known, for it was put there."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from nst_lightning import images
from nst_lightning.metrics import Blotches, Border, Clipped, Grid
from nst_lightning.metrics.base import Score
from nst_lightning.metrics.lab import lab
from nst_lightning.metrics.scorer import Scorer
from tests.metrics.test_outline import picture
from tests.metrics.variants import SAMPLES, read_pair

Array = npt.NDArray[np.float64]
DEFECTS: tuple[type[Score], ...] = (Grid, Border, Clipped, Blotches)
LIMITS: dict[str, float] = {defect.name: defect.limit or 0 for defect in DEFECTS}


def in_8_bits(image: Tensor) -> Tensor:
    return (image.clamp(0, 1) * 255).round() / 255


# ---- against formulas written anew ----


def luma(rgb: Array) -> Array:
    mixed: Array = np.tensordot([0.2126, 0.7152, 0.0722], rgb, 1)
    return mixed


def peaks(rgb: Array) -> dict[tuple[int, int], float]:
    y, window = luma(rgb), np.outer(*2 * [np.sin(np.pi * np.arange(32) / 32) ** 2])
    steps = [max(16, side // 32) for side in y.shape]
    logs = [
        np.log(np.abs(np.fft.fft2((patch - patch.mean()) * window)) ** 2 / (window**2).sum() + 1 / 255**2 / 12)
        for row in range(0, y.shape[0] - 31, steps[0])
        for column in range(0, y.shape[1] - 31, steps[1])
        for patch in [y[row : row + 32, column : column + 32]]
    ]
    level = np.mean(logs, axis=0)

    def standing(y: int, x: int) -> float:
        lines = [
            [level[(y + far * down) % 32, (x + far * right) % 32] for far in (-3, -2, 2, 3)]
            for down, right in ((1, 0), (0, 1), (1, 1), (-1, 1))
        ]
        return float(level[y, x] - np.mean(lines, axis=1).max())

    return {(y, x): standing(y, x) for y, x in product((0, 4, 8, 16, 24, 28), repeat=2) if (y, x) != (0, 0)}


def grid(output: Array, content: Array, style: Array) -> float:
    ours, *theirs = map(peaks, (output, content, style))
    return 1 - float(np.exp(-max(0, *(ours[place] - max(0, *(each[place] for each in theirs)) for place in ours))))


def rings(rgb: Array) -> Array:
    y = luma(rgb)
    detail = np.sqrt(np.diff(y, axis=0)[:, :-1] ** 2 + np.diff(y, axis=1)[:-1] ** 2)
    rows, columns = np.indices(detail.shape)
    far = np.min([rows, columns, detail.shape[0] - 1 - rows, detail.shape[1] - 1 - columns], axis=0)
    inside = detail[far >= 16].mean() + 1 / 255
    return np.array([(detail[far == ring].mean() + 1 / 255) / inside for ring in range(16)])


def border(output: Array, content: Array, style: Array) -> float:
    return float(1 - 1 / np.maximum(rings(output) / np.maximum(rings(content), 1), 1).max())


def clipped(output: Array, content: Array, style: Array) -> float:
    ours, *theirs = (float(np.isin(np.rint(each * 255), (0, 255)).mean()) for each in (output, content, style))
    return max(0, ours - max(theirs))


def contrast(rgb: Array) -> Array:
    seen = lab(torch.from_numpy(rgb)[None])[0].numpy()
    sides = seen.shape[1:]
    numbers = [round(side * 6 / min(sides)) for side in sides]
    cuts = [
        [(i * side // n, -(-(i + 1) * side // n)) for i in range(n)] for side, n in zip(sides, numbers, strict=True)
    ]
    cells = np.array([[seen[:, a:b, c:d].mean((1, 2)) for c, d in cuts[1]] for a, b in cuts[0]])
    padded = np.pad(cells, ((2, 2), (2, 2), (0, 0)), "edge")
    means = [[padded[i : i + 5, j : j + 5].mean((0, 1)) for j in range(numbers[1])] for i in range(numbers[0])]
    return (cells - np.array(means)).reshape(-1, 3)


def blotches(output: Array, content: Array, style: Array) -> float:
    stretched = in_8_bits(images.resize(torch.from_numpy(style)[None].float(), (output.shape[1], output.shape[2])))
    ours, known = contrast(output), np.hstack([contrast(content), contrast(stretched[0].double().numpy())])
    padded = np.vstack([known, np.eye(6)]), np.vstack([ours, np.zeros((6, 3))])
    rest = ours - known @ np.linalg.lstsq(*padded, rcond=None)[0]
    return float((rest**2).sum() / ((ours**2).sum() + 4 * len(ours)))


@pytest.mark.parametrize("size", [(96, 70), (64, 131)])
@pytest.mark.parametrize("formula", [grid, border, clipped, blotches])
def test_it_is_the_formula_in_float64(formula: Callable[..., float], size: tuple[int, int]) -> None:
    output = in_8_bits(framed(checkered(picture(1, size) * 1.4 - 0.2, 4, 0.02), 3))
    content, style = in_8_bits(picture(2, size)), in_8_bits(picture(3, (80, 100)) * 1.1)
    expected = formula(*(each[0].double().numpy() for each in (output, content, style)))
    (metric,) = [defect() for defect in DEFECTS if defect.name == formula.__name__]
    found = metric.numbers(output=output, content=content, style=style)
    assert found.item() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert 0.001 < expected < 0.999


def test_large_pictures_have_no_more_patches_and_the_same_grid() -> None:
    grids = []
    for side in (256, 1600):
        image = in_8_bits(0.4 + 0.2 * torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)))
        grids.append(Grid().numbers(output=in_8_bits(checkered(image, 4, 0.01)), content=image, style=image).item())
    assert grids[0] == pytest.approx(grids[1], abs=0.05)
    assert grids[1] > 0.5


def test_below_64_px_there_is_no_number_and_a_small_style_has_no_say() -> None:
    content, style = picture(1, (64, 80)), picture(2, (20, 30))
    for defect in DEFECTS:
        for output, finite in ((content, True), (content[..., :63, :], False)):
            found = defect().numbers(output=output, content=output, style=style)
            assert found.isfinite().item() == finite
        assert defect().numbers(output=content, content=content, style=style).item() == pytest.approx(0, abs=1e-3)


def test_a_flat_picture_has_no_defects() -> None:
    flat = torch.full((1, 3, 64, 64), 0.5)
    assert [defect().numbers(output=flat, content=flat, style=flat).item() for defect in DEFECTS] == [0, 0, 0, 0]


def test_what_any_source_has_is_no_defect() -> None:
    content, style = (in_8_bits(0.25 + 0.5 * picture(seed, (96, 96))) for seed in (1, 2))
    output = in_8_bits(2 * blotched(checkered(content, 4)) - 0.5)
    scorer = Scorer(("defects",))
    alone, beside = (scorer.scores(output, scorer.reference(content, styles)) for styles in ([style], [style, output]))
    for name in ("grid", "clipped", "blotches"):
        assert beside[name] == pytest.approx(0, abs=1e-3) != alone[name]
    assert beside["border"] == alone["border"]


# ---- pictures with defects ----


def checkered(image: Tensor, period: int, amplitude: Tensor | float = 0.03) -> Tensor:
    rows, columns = (torch.arange(side) // (period // 2) for side in image.shape[-2:])
    return image + amplitude * ((rows[:, None] + columns) % 2 * 2.0 - 1)


def striped(image: Tensor, period: int) -> Tensor:
    return image + 0.03 * (torch.arange(image.shape[-1]) // (period // 2) % 2 * 2.0 - 1)


def framed(image: Tensor, width: int, pattern: Tensor | float = 1.0) -> Tensor:
    frame = torch.ones_like(image)
    frame[..., width:-width, width:-width] = 0
    return image + 0.2 * frame * pattern


def noisy_frame(image: Tensor) -> Tensor:
    return framed(image, 5, torch.randn(image.shape, generator=torch.Generator().manual_seed(0)))


def stretched(image: Tensor) -> Tensor:
    low, high = image.quantile(0.1), image.quantile(0.9)
    return (image - low) / (high - low)


def blotched(image: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    rows, columns = (torch.arange(side) / min(image.shape[-2:]) for side in image.shape[-2:])
    for _ in range(30):
        place = torch.rand(2, generator=generator) * torch.stack([rows[-1], columns[-1]])
        colour = torch.randn(3, 1, 1, generator=generator)
        squares = (rows[:, None] - place[0]).square() + (columns - place[1]).square()
        image = image + 0.35 * colour / colour.norm() * (-squares / (2 * 0.1**2)).exp()
    return image


WRONG: dict[str, tuple[Callable[[Tensor], Tensor], ...]] = {
    "grid": (
        *(lambda image, period=period: checkered(image, period) for period in (2, 4, 8)),
        *(lambda image, period=period: striped(image, period) for period in (2, 4, 8)),
    ),
    "border": (lambda image: framed(image, 2), lambda image: framed(image, 8), noisy_frame),
    "clipped": (stretched,),
    "blotches": (blotched,),
}
EXAMPLES = {"temple": "church_at_auvers", "astronaut": "pere_tanguy"}
Scores = Callable[[Tensor], dict[str, float]]


@pytest.fixture(scope="module", params=EXAMPLES)
def example(request: pytest.FixtureRequest) -> tuple[dict[str, Tensor], Scores]:
    """Content, stylised picture and the style in its place, and the defects of a picture beside the pair."""
    content, style = request.param, EXAMPLES[request.param]
    stylised = images.read(Path(SAMPLES) / f"examples/{content}_{style}.png").rgb
    photograph, painting = read_pair(content, style, max(stylised.shape[-2:]))
    scorer = Scorer(("defects",))
    reference = scorer.reference(photograph, [painting])
    size = (photograph.shape[-2], photograph.shape[-1])
    pictures = {"content": photograph, "stylised": stylised, "style": images.resize(painting, size).clamp(0, 1)}
    return pictures, lambda image: scorer.scores(image.clamp(0, 1), reference)


def beyond(found: dict[str, float], factor: float = 1.0) -> list[str]:
    return [name for name, limit in LIMITS.items() if found[name] > factor * limit]


def test_clean_pictures_are_below_all_limits(example: tuple[dict[str, Tensor], Scores]) -> None:
    pictures, scores = example
    assert [beyond(scores(image), 0.75) for image in pictures.values()] == [[], [], []]
    assert list(scores(pictures["content"]).values()) == pytest.approx([0, 0, 0, 0], abs=1e-6)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("clean", ["content", "stylised"])
def test_each_sees_its_own_defect_and_no_other(
    example: tuple[dict[str, Tensor], Scores], clean: str, name: str
) -> None:
    pictures, scores = example
    # With room below 0 and above 1, for else what is added is clipped too.
    image = pictures[clean] if name == "clipped" else 0.25 + 0.5 * pictures[clean]
    assert beyond(scores(image)) == []
    for spoil in WRONG[name]:
        found = scores(spoil(image))
        assert found[name] > 1.15 * LIMITS[name], found
        assert beyond(found) == [name], found


def test_more_of_a_defect_scores_higher(example: tuple[dict[str, Tensor], Scores]) -> None:
    pictures, scores = example
    image = 0.25 + 0.5 * pictures["stylised"]
    ways: dict[str, Any] = {
        "grid": lambda much: checkered(image, 4, 0.03 * much),
        "border": lambda much: framed(image, 4, much),
        "clipped": lambda much: 0.5 + (image - 0.5) * (2 + 2 * much),
        "blotches": lambda much: image + much * (blotched(image) - image),
    }
    for name, way in ways.items():
        found = [scores(way(much))[name] for much in (0.25, 0.5, 1)]
        assert found[0] < found[1] < found[2], name
