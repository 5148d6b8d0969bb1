"""Style cards: a card of paintings is as good as the paintings, and only for the network and losses that it is of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_lightning import StyleTransfer, stylize
from nst_lightning.__main__ import main
from nst_lightning.cards import Card, is_card, mixed
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.images import fit, read, resize
from nst_lightning.losses import Statistic
from nst_lightning.tiling import Whole

LOSSES = "gram,moments,matched,nearest,histogram"
LAYERS = ["relu1_1", "relu2_1"]


def learned(card: Path, *arguments: object) -> Path:
    common = ["--sizes", "32", "64", "--style_loss", LOSSES, "--style_layers", ",".join(LAYERS)]
    assert main(["style", "learn", *map(str, arguments), "-o", str(card), *common]) == 0
    return card


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory, style_png: Path, content_png: Path) -> Path:
    """A folder with one.style, of a painting, rough.style, of it with samples in 16 bits, and both.style, of two."""
    folder = tmp_path_factory.mktemp("cards")
    learned(folder / "one.style", style_png)
    learned(folder / "rough.style", style_png, "--half")
    learned(folder / "both.style", style_png, content_png)
    return folder


def paint(content: Path | list[Path], style: Path | list[Path], **options: object) -> Tensor:
    common: dict[str, Any] = {
        "size": 64,
        "steps": 2,
        "style_loss": LOSSES,
        "style_layers": LAYERS,
        "content_layers": "relu2_1",
    }
    stylized: Any = stylize  # a list where either is one
    picture = stylized(content, style, **{**common, "progress": False, "accelerator": "cpu", **options})
    return torch.cat([read(each).rgb for each in picture]) if isinstance(picture, list) else read(picture).rgb


def test_a_card_of_a_painting_is_the_painting(
    cards: Path, content_png: Path, style_png: Path, one_thread: None
) -> None:
    alone = paint(content_png, style_png)
    assert torch.equal(paint(content_png, cards / "one.style"), alone)
    assert torch.equal(
        paint(content_png, [cards / "one.style", content_png], style_weights=[0.3, 0.7]),
        paint(content_png, [style_png, content_png], style_weights=[0.3, 0.7]),
    )
    together = paint([content_png, content_png], cards / "one.style", batch_size=2)
    assert torch.equal(together, torch.cat([alone, alone]))
    in_tiles = paint(content_png, cards / "one.style", tile=32)
    torch.testing.assert_close(in_tiles, alone, rtol=0, atol=1.5 / 255)
    rough = paint(content_png, cards / "rough.style")
    assert (rough - alone).abs().mean() < 1 / 255
    assert (cards / "rough.style").stat().st_size < 0.6 * (cards / "one.style").stat().st_size


def test_a_card_of_several_is_all_of_them(cards: Path, content_png: Path, style_png: Path) -> None:
    problem = StyleTransfer(style_loss=LOSSES, style_layers=LAYERS).problem
    objective, card = problem.objective.only(["style"]), Card.read(cards / "both.style")
    images = [read(file).rgb for file in (style_png, content_png)]
    images = [resize(each, fit(each.shape[-2], each.shape[-1], 64)).clamp(0, 1) for each in images]
    ours = objective.targets([card.kept(70, objective.terms, torch.device("cpu"))], [1.0])
    expected = Whole(problem.backbone, objective).targets("style", images, [1.0, 1.0], 0)
    assert ours.keys() == expected.keys()
    for name, target in expected.items():
        for other, each in zip(ours[name], target, strict=True):
            if "/" in name and name.split("/")[1] in ("matched", "nearest", "histogram"):
                other, each = other.sort(dim=-1).values, each.sort(dim=-1).values  # in no order
            torch.testing.assert_close(other, each, rtol=1e-5, atol=1e-6)


def test_any_part_of_its_samples_is_of_all_paintings() -> None:
    samples = torch.arange(100.0).expand(1, 2, 100)
    found = mixed(Statistic({}, torch.ones(1), {"features": samples})).samples["features"]
    assert torch.equal(found.sort(dim=2).values, samples)
    assert 20 < (found[0, 0, :60] < 50).sum() < 40


def test_the_nearest_size_is_taken(
    cards: Path, content_png: Path, style_png: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = Card.read(cards / "one.style")
    assert (card.sizes, card.paintings) == ([32, 64], ["style"])
    assert [card.nearest(side) for side in (8, 45, 46, 500)] == [32, 32, 64, 64]

    def prepared(scale: float) -> None:
        data = PairDataModule(str(content_png), str(cards / "one.style"), size=96, stages=1, style_scale=scale)
        data.setup("fit")
        data.look_at_cards()

    prepared(2 / 3)  # which it can honour
    assert "the nearest" not in capsys.readouterr().err
    prepared(1.0)
    assert "one.style: holds 32, 64 px, and 96 px are asked for: the nearest is taken" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"holds 32, 64 px, and 16 px .* leave out style_scale, or .* --sizes 16"):
        prepared(1 / 6)


def test_it_is_used_shown_and_reproduced_as_a_file(
    cards: Path, content_png: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.csv").write_text(f"content,style,name\n{content_png},{cards / 'both.style'},a\n")
    options = ["--size=64", "--steps=4", f"--style_loss={LOSSES}", f"--style_layers={','.join(LAYERS)}"]
    assert main(["fit", "--pairs", "pairs.csv", *options, "-o", "out"]) == 0
    told = capsys.readouterr().err
    assert "a style card holds no painting" in told
    assert "outline" in told
    assert "texture" not in told
    assert main(["fit", "--pairs", "pairs.csv", *options, "-o", "cut", "--trainer.max_steps", "3"]) == 3
    assert main(["fit", "--resume", "cut", "--trainer.max_steps", "-1"]) == 0
    assert torch.equal(read("cut/a.png").rgb, read("out/a.png").rgb)
    assert main(["reproduce", "out/a.png", "-o", "again.png"]) == 0
    assert "the same pixels" in capsys.readouterr().out
    assert main(["style", "show", str(cards / "both.style"), "-o", "texture.png", "--size=48", "--steps=3"]) == 0
    told = capsys.readouterr().out
    for line in ("2 paintings at 32, 64 px", "style, content", "vgg16 (oxford, max, zeros", "gram (relu1_1, relu2_1)"):
        assert line in told
    assert read("texture.png").size == (48, 48)
    learned(cards / "one.style", content_png)  # keeps the other
    assert Card.read(cards / "one.style").paintings == ["style"]
    assert Card.read(cards / "one-2.style").paintings == ["content"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"backbone": "vgg19"},
            r"one.style: is of the network vgg16 \(oxford, max, zeros, \w+\); this run has vgg19 \(",
        ),
        ({"pooling": "avg"}, r"network vgg16 \(oxford, max, .*; this run has vgg16 \(oxford, avg, "),
        ({"normalized": True}, r"this run has vgg16 \(oxford, max, zeros, normalized, "),
        (
            {"style_loss": "sliced,gram"},
            r"holds gram \(relu1_1, relu2_1\), .*; this run compares sliced \(relu1_1, relu2_1\) too",
        ),
        ({"style_layers": ["relu3_1"]}, r"this run compares gram \(relu3_1\)"),
        ({"style_rotations": True}, "one.style: style_rotations: it was not learned with them"),
        ({"init": "mean"}, "init mean needs the painting, which a style card does not hold"),
        ({"strength": 0.5}, "strength needs the painting"),
        ({"colors": "matched"}, "colors matched changes the painting"),
        ({"style_mask": ["alpha"]}, "style_mask is of a painting, which a style card does not hold"),
    ],
)
def test_what_a_card_cannot_do_is_one_line(cards: Path, content_png: Path, options: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        paint(content_png, cards / "one.style", **options)


def test_what_is_no_card_is_one_line(cards: Path, content_png: Path, style_png: Path, tmp_path: Path) -> None:
    whole = (cards / "one.style").read_bytes()
    for name, found in (("cut", whole[:-9]), ("foreign", style_png.read_bytes()), ("empty", b"")):
        (tmp_path / f"{name}.style").write_bytes(found)
        with pytest.raises(InputError, match=rf"{name}.style: is no style card \(foreign, damaged or truncated\)"):
            paint(content_png, tmp_path / f"{name}.style")
    with pytest.raises(InputError, match=r"nobody.style: is no style card \(No such file"):
        Card.read(tmp_path / "nobody.style")
    assert is_card("A.STYLE") and not is_card(style_png) and not is_card(torch.zeros(3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["learn"], "no painting was given"),
        (["teach"], "nst style is followed by learn or show, got 'teach'"),
        (["learn", "{painting}", "-o", "card.png"], r"card.png: a style card's name ends with .style"),
        (["learn", "{painting}", "-o", "a.style", "--sizes", "0,64"], r"sizes must be whole numbers .* got '0,64'"),
        (["learn", "{painting}", "-o", "a.style", "--size", "8"], r"style.png: \dx\d px are too small for the layers"),
        (["learn", "{card}", "-o", "a.style"], r"one.style: is a card, no painting"),
    ],
)
def test_what_cannot_be_learned_is_one_line(
    cards: Path, style_png: Path, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [each.format(painting=style_png, card=cards / "one.style") for each in arguments]
    assert main(["style", *named]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(text, line), line
