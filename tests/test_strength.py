"""The style weight of a strength: its formula, that a run finds it once, and that it is carried on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest

from nst_lightning import stylize
from nst_lightning.__main__ import main
from nst_lightning.api import quiet
from nst_lightning.data import PairDataModule
from nst_lightning.errors import InputError
from nst_lightning.image_files import read_metadata
from nst_lightning.modules import StyleTransfer, strength
from nst_lightning.modules.strength import FACTORS, way, weight_of
from nst_lightning.pairs import Pair

FAST: dict[str, Any] = {
    **{"size": 48, "steps": 4, "stages": 1, "content_layers": "relu2_1", "style_layers": "relu1_1,relu2_1"},
    **{"style_loss": "gram"},
}
OPTIONS = [word for name, value in FAST.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the pairs that small pictures were painted for."""
    names: list[str] = []
    judge = strength._judged

    def noted(*given: Any) -> Any:  # noqa: ANN401 - as that
        names.append(given[3].name)
        return judge(*given)

    monkeypatch.setattr(strength, "_judged", noted)
    return names


def settings(picture: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_metadata(picture)["nst_lightning"])
    return found


# ---- the formula ----


def test_the_way_is_the_mean_of_palette_texture_and_the_part_of_the_outline_that_is_lost() -> None:
    scores = {"outline": 0.6, "palette": 0.5, "texture": -0.2}
    assert way(scores, {"outline": 0.8}) == pytest.approx((0.5 + 0 + 0.25) / 3)
    assert way({**scores, "palette": math.nan}, {"outline": 0.8}) == pytest.approx((0 + 0.25) / 2)
    assert way(scores, {"outline": 0.0}) == pytest.approx(0.25)
    assert math.isnan(way(dict.fromkeys(scores, math.nan), {"outline": math.nan}))


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.0, 0.0),
        (0.1, 0.05),  # in the weight below the first
        (0.2, 0.1),
        (0.6, 1.0),  # halfway between 0.2 and 1 is halfway between 0.1 and 10 in the logarithm
        (1.0, 10.0),
    ],
)
def test_a_strength_is_a_share_of_the_way_at_the_largest_weight(share: float, expected: float) -> None:
    assert weight_of(share, [0.1, 10.0], [0.1, 0.5]) == pytest.approx(expected)


def test_a_way_is_no_shorter_than_that_of_less_weight_and_a_weight_is_told_in_four_digits() -> None:
    found = [weight_of(each / 50, [1, 2, 4, 8], [0.1, 0.4, 0.3, 0.5]) for each in range(51)]
    assert found == sorted(found)
    assert max(found) == 8
    assert all(each == float(f"{each:.4g}") for each in found)
    assert weight_of(0.5, [1, 2], [0.0, 0.0]) == 0.5  # nothing moves: a share of the least weight


# ---- in a run ----


def test_a_run_finds_the_weight_and_reproduces_the_picture_without_finding_it_again(
    workplace: Path, judged: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "photo.png", "painting.png", "--strength", "0.5", "-o", "a.png", *OPTIONS]) == 0
    found = settings(Path("a.png"))
    assert found["strength"] == 0.5
    assert 0 < found["style_weight"] <= 2.5 * FACTORS[-1]
    line = f"nst: photo_painting: strength 0.5 is style_weight {found['style_weight']:g}\n"
    assert capfd.readouterr().err.count(line) == 1
    assert judged == ["photo_painting"]

    assert main(["reproduce", "a.png", "-o", "b.png"]) == 0
    assert "b.png: the same pixels as a.png\n" in capfd.readouterr().out
    weight = str(found["style_weight"])
    assert main(["fit", "photo.png", "painting.png", "--style_weight", weight, "-o", "c.png", *OPTIONS]) == 0
    assert settings(Path("c.png"))["style_weight"] == found["style_weight"]
    assert np.array_equal(np.asarray(opened("a.png")), np.asarray(opened("c.png")))
    assert judged == ["photo_painting"]

    assert main(["fit", "--config", "a.png", "--strength", "1", "-o", "d.png"]) == 0  # goes before the picture's
    assert settings(Path("d.png"))["style_weight"] == pytest.approx(found["style_weight"] * FACTORS[-1], rel=1e-3)
    assert len(judged) == 2


def opened(name: str) -> object:
    from PIL import Image

    return Image.open(name)


def test_a_list_gives_pairs_strengths_of_their_own_and_those_of_the_same_images_share_what_is_painted(
    workplace: Path, judged: list[str]
) -> None:
    rows = ["photo.png,painting.png,less,0.2,", "photo.png,painting.png,more,0.9,", "painting.png,photo.png,other,,"]
    Path("pairs.csv").write_text(
        "\n".join(["content,style,name,strength,style_weight", *rows, "photo.png,painting.png,own,,7"])
    )
    options = ["--pairs", "pairs.csv", "--strength", "0.5", "--batch_size", "2", "-o", "run", *OPTIONS]
    assert main(["fit", *options]) == 0
    assert judged == ["less", "other"]
    found = {name: settings(Path(f"run/{name}.png")) for name in ("less", "more", "other", "own")}
    assert {name: each.get("strength") for name, each in found.items()} == {
        **{"less": 0.2, "more": 0.9, "other": 0.5, "own": None},
    }
    assert found["less"]["style_weight"] < found["more"]["style_weight"]
    assert found["own"]["style_weight"] == 7


def test_a_run_that_goes_on_does_not_find_it_again(workplace: Path, judged: list[str]) -> None:
    whole = ["photo.png", "painting.png", "--strength", "0.5", *OPTIONS]
    assert main(["fit", *whole, "-o", "whole"]) == 0
    assert main(["fit", *whole, "-o", "run", "--trainer.max_steps", "2"]) == 3
    judged.clear()
    assert main(["fit", "--resume", "run", "--trainer.max_steps", "-1"]) == 0
    assert judged == []
    assert Path("run/photo_painting.png").read_bytes() == Path("whole/photo_painting.png").read_bytes()
    assert main(["fit", *whole, "-o", "other", "--trainer.max_steps", "2"]) == 3
    assert main(["fit", "--resume", "other", "--strength", "0.7"]) == 2


def test_stylize_and_a_trainer_of_ones_own_find_the_same(workplace: Path, tmp_path: Path) -> None:
    picture = stylize("photo.png", "painting.png", strength=0.5, progress=False, **FAST)
    of_data = {name: FAST[name] for name in ("size", "steps", "stages")}
    data = PairDataModule("photo.png", "painting.png", strength=0.5, **of_data)
    module = StyleTransfer(**{name: value for name, value in FAST.items() if name not in of_data})
    off: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_checkpointing", "enable_model_summary"), False
    )
    with quiet():
        trainer = L.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **off)
        trainer.fit(module, datamodule=data)
    assert np.array_equal(np.asarray(picture), (module.result[0].permute(1, 2, 0) * 255).round().byte().numpy())


def test_0_is_a_weight_of_0(workplace: Path) -> None:
    by_strength = stylize("photo.png", "painting.png", progress=False, **FAST, strength=0)
    by_weight = stylize("photo.png", "painting.png", progress=False, **FAST, style_weight=0)
    assert np.array_equal(np.asarray(by_strength), np.asarray(by_weight))


# ---- what cannot be used ----


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--strength", "1.5"], "strength must be a number from 0 to 1, got 1.5"),
        (["--strength", "nan"], "--strength: Expected a float"),
        (["--strength", "much"], "--strength must be a number, got 'much'"),
        (["--strength", "0.5", "--style_weight", "3"], "--strength finds the style_weight: leave out one of them"),
        (["--strength", "0.5", "--content_weight", "0"], "strength needs a content_weight and a style_weight above 0"),
    ],
)
def test_a_strength_that_cannot_be_used_is_told_in_one_line(
    options: list[str], told: str, workplace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "photo.png", "painting.png", *OPTIONS, *options]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert told in line


def test_strength_and_style_weight_are_not_both_taken(workplace: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"^strength finds the style_weight: leave out one of them$"):
        stylize("photo.png", "painting.png", strength=0.5, style_weight=2.0)
    Path("pairs.csv").write_text("content,style,strength,style_weight\nphoto.png,painting.png,0.5,2\n")
    assert main(["fit", "--pairs", "pairs.csv"]) == 2
    assert "pairs.csv line 2: strength finds the style_weight: leave out one of them" in capfd.readouterr().err


def test_a_pair_whose_scores_tell_nothing_is_left_out_with_the_reason(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(strength, "way", lambda *_: math.nan)
    assert main(["fit", "photo.png", "painting.png", "--strength", "0.5", "-o", "run", *OPTIONS]) == 2
    assert "strength cannot be told by the scores; give a style_weight instead" in capfd.readouterr().err


def test_a_pair_may_have_both_once_the_weight_was_found() -> None:
    pair = Pair("a.png", ("b.png",), "a", strength=0.5)
    assert replace(pair, weights={"style": 3.0}).of_strength(0.2).strength == 0.5
    assert Pair("a.png", ("b.png",), "a", {"style": 3.0}).of_strength(0.2).strength is None
