"""`nst score`: pictures of any program against their content and style images."""

from __future__ import annotations

import csv
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from nst_lightning import images
from nst_lightning.__main__ import main
from nst_lightning.cli.options import score_names
from nst_lightning.cli.score import score
from nst_lightning.metrics.scorer import NAMES, Scorer
from tests.conftest import SAMPLES
from tests.metrics.functions import texture_distance

SIZES = {"content": (96, 64), "style": (64, 80)}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with two small samples of each kind, and two pictures that are between them."""
    monkeypatch.chdir(tmp_path)
    for kind, names in (("content", ("chelsea", "astronaut")), ("style", ("night_cafe", "pere_tanguy"))):
        folder = tmp_path / f"data/{kind}-images"
        folder.mkdir(parents=True)
        for name in names:
            with Image.open(SAMPLES / f"{kind}-images/{name}.jpg") as image:
                image.convert("RGB").resize(SIZES[kind]).save(folder / f"{name}.png")
    (tmp_path / "out").mkdir()
    for name, part in (("a", 0.3), ("b", 0.6)):
        mixed(f"out/{name}.png", part)
    return tmp_path


def mixed(path: str, part: float, content: str = "chelsea", style: str = "night_cafe") -> None:
    with Image.open(f"data/content-images/{content}.png") as one, Image.open(f"data/style-images/{style}.png") as other:
        Image.blend(one, other.resize(one.size), part).save(path)


def nst_score(*options: str) -> int:
    return main(["score", "--content", "chelsea", "--style", "night_cafe", *options])


def files() -> set[Path]:
    return set(Path().rglob("*"))


def printed(out: str) -> tuple[dict[str, dict[str, str]], list[str]]:
    """The tables that were printed, by picture and score, and the paths below them."""
    lines = out.splitlines()
    (end,) = (place for place, line in enumerate(lines) if line.startswith("+ higher is better"))
    found: dict[str, dict[str, str]] = {}
    for line in lines[:end]:
        if line.startswith(" "):
            names = [re.sub(r"[+-]$", "", head) for head in line.split()]
        else:
            name, *row = line.split()
            found.setdefault(name, {}).update(zip(names, row, strict=True))
    return found, lines[end + 1 :]


def as_printed(value: float | str | None) -> str:
    return "n/a" if value in (None, "") else f"{float(value):.3f}"


def read(stem: str) -> list[dict[str, str | float | None]]:
    """The rows of a result, which CSV and JSON have to agree on."""
    rows: list[dict[str, str | float | None]] = json.loads(Path(f"{stem}.json").read_text())
    with Path(f"{stem}.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [
            {name: "" if value is None else str(value) for name, value in row.items()} for row in rows
        ]
    return rows


# ---- what is scored ----


def test_a_single_picture_has_a_table_and_two_files_of_the_same_numbers(capfd: pytest.CaptureFixture[str]) -> None:
    assert nst_score("--output", "out/a.png") == 0
    told = capfd.readouterr()
    assert re.fullmatch(r"nst: LPIPS is left out[^\n]*\n", told.err)
    found, paths = printed(told.out)
    assert list(found) == ["a"]
    assert paths == ["data/output-images/scores.csv", "data/output-images/scores.json"]
    (row,) = read("data/output-images/scores")
    names = ("output", "content", "style")
    assert [row.pop(name) for name in names] == [
        "out/a.png",
        "data/content-images/chelsea.png",
        "data/style-images/night_cafe.png",
    ]
    assert found["a"] == {name: as_printed(row[name]) for name in found["a"]}
    of_transfer = ["outline", "ms_ssim", "palette", "texture", "leak", "overall"]
    assert list(found["a"]) == [*of_transfer, "grid", "border", "clipped", "blotches"]
    assert found["a"]["ms_ssim"] == "n/a"
    scorer = Scorer()
    kinds = ("content-images/chelsea", "style-images/night_cafe")  # the style is no larger than the picture
    content, style = (images.read(f"data/{kind}.png").rgb for kind in kinds)
    expected = scorer.scores(images.read("out/a.png").rgb, scorer.reference(content, [style]))
    assert {name: math.nan if value is None else value for name, value in row.items()} == pytest.approx(
        expected, rel=1e-12, abs=0, nan_ok=True
    )


def test_a_folder_of_outputs_has_one_content_and_one_style(capfd: pytest.CaptureFixture[str]) -> None:
    assert nst_score("--output", "out", "--results", "of/both") == 0
    found, paths = printed(capfd.readouterr().out)
    assert list(found) == ["a", "b", "mean"]
    assert paths == ["of/both.csv", "of/both.json"]
    rows = read("of/both")
    assert [row["output"] for row in rows] == ["out/a.png", "out/b.png"]
    for name in found["mean"]:
        values = [value for row in rows if isinstance(value := row[name], float)]
        assert found["mean"][name] == as_printed(sum(values) / len(values) if values else None)
    outline, leak = ([float(str(row[name])) for row in rows] for name in ("outline", "leak"))
    assert outline[0] > outline[1]
    assert leak[0] < leak[1]


def test_as_many_of_each_are_compared_in_their_order(capfd: pytest.CaptureFixture[str]) -> None:
    mixed("out/b.png", 0.5, "astronaut", "pere_tanguy")
    both = ["--content", "chelsea", "astronaut", "--style", "night_cafe", "pere_tanguy"]
    assert main(["score", *both, "--output", "out/a.png", "out/b.png", "--results", "r"]) == 0
    alone = ["--content", "astronaut", "--style", "pere_tanguy", "--output", "out/b.png", "--results", "s"]
    assert main(["score", *alone]) == 0
    assert read("r")[1] == read("s")[0]


def test_pairs_are_found_in_the_folder_of_their_run(capfd: pytest.CaptureFixture[str]) -> None:
    data = "data/{}-images/{}.png".format
    Path("p.csv").write_text(
        f"content,style,name,seed\n"
        f"{data('content', 'chelsea')},{data('style', 'night_cafe')},a,1\n"
        f"{data('content', 'astronaut')},{data('style', 'night_cafe')}|{data('style', 'pere_tanguy')},b.c,\n"
    )
    mixed("out/b.c.png", 0.5, "astronaut")
    mixed("out/a.b.png", 0.9)  # another pair's, although `a.*` matches
    Path("out/a.webp").write_bytes(b"a film")
    assert main(["score", "--pairs", "p.csv", "--output", "out", "--results", "r"]) == 0
    rows = read("r")
    assert [row["output"] for row in rows] == ["out/a.png", "out/b.c.png"]
    assert [Path(each).stem for each in str(rows[1]["style"]).split("|")] == ["night_cafe", "pere_tanguy"]
    assert nst_score("--output", "out/a.png", "--results", "s") == 0
    numbers = [{name: value for name, value in read(each)[0].items() if "l" in name} for each in "rs"]
    assert numbers[0]["leak"] == numbers[1]["leak"]


def test_a_pairs_picture_of_another_program_may_have_another_suffix() -> None:
    content, style = "data/content-images/chelsea.png", "data/style-images/night_cafe.png"
    Path("p.csv").write_text(f"content,style,name\n{content},{style},c\n")
    mixed("out/c.d.png", 0.5)
    mixed("out/c.jpg", 0.5)
    assert main(["score", "--pairs", "p.csv", "--output", "out", "--results", "r"]) == 0
    assert read("r")[0]["output"] == "out/c.jpg"


def test_the_content_is_brought_to_the_size_of_the_picture() -> None:
    with Image.open("data/content-images/chelsea.png") as content:
        content.resize((48, 32)).save("small.png")
        content.resize((49, 32)).save("rounded.png")
    assert nst_score("--output", "small.png", "rounded.png", "--scores", "outline", "--results", "r") == 0
    assert all(float(str(row["outline"])) > 0.6 for row in read("r"))


def test_the_size_of_the_style_can_be_given_as_it_was_painted() -> None:
    for scale in ("1", "0.5"):
        assert nst_score("--output", "out/a.png", "--style_scale", scale, "--results", f"r{scale}") == 0
    one, half = (read(f"r{scale}")[0] for scale in ("1", "0.5"))
    style = images.resize(images.read("data/style-images/night_cafe.png").rgb, (48, 38)).clamp(0, 1)
    expected = texture_distance(images.read("out/a.png").rgb, style).item()  # half as long as the picture
    assert half["texture_distance"] == pytest.approx(expected)
    assert one["texture"] != half["texture"]
    assert one["outline"] == half["outline"]


def test_the_names_of_scores_decide_the_columns(capfd: pytest.CaptureFixture[str]) -> None:
    assert nst_score("--output", "out/a.png", "--scores", "palette, leak") == 0
    told = capfd.readouterr()
    assert told.err == ""
    assert set(printed(told.out)[0]["a"]) == {"palette", "leak"}
    assert set(read("data/output-images/scores")[0]) == {
        *("output", "content", "style"),
        *("palette", "palette_distance", "leak"),
    }


def test_pictures_of_one_name_are_told_apart(capfd: pytest.CaptureFixture[str]) -> None:
    Path("more").mkdir()
    mixed("more/a.png", 0.5)
    assert nst_score("--output", "out/a.png", "more/a.png") == 0
    assert list(printed(capfd.readouterr().out)[0]) == ["a", "more/a.png", "mean"]


def test_results_are_numbered_when_taken_and_never_overwritten(capfd: pytest.CaptureFixture[str]) -> None:
    for number in (1, 2, 3):
        if number == 2:
            Path("r.csv").unlink()  # r.json is still there
        assert nst_score("--output", f"out/{'ab'[number % 2]}.png", "--results", "r") == 0
    assert [line for line in capfd.readouterr().out.splitlines() if line.startswith("r")] == [
        *("r.csv", "r.json"),
        *("r-2.csv", "r-2.json"),
        *("r-3.csv", "r-3.json"),
    ]
    written = [json.loads(Path(f"r{number}.json").read_text())[0]["output"] for number in ("", "-2", "-3")]
    assert written == ["out/b.png", "out/a.png", "out/b.png"]


def test_images_may_be_tensors_and_one_picture_may_have_several_styles() -> None:
    generator = torch.Generator().manual_seed(0)
    output, content, *styles = (torch.rand(3, 32, 40, generator=generator) for _ in range(4))
    found = score(output, content, styles, Scorer(("palette",)))
    each = [score(output, content, [style], Scorer(("palette",)))["palette_distance"] for style in styles]
    assert found["palette_distance"] == pytest.approx(sum(each) / 2)


# ---- what cannot be ----


def pairs_csv(rows: str, *pictures: str) -> Callable[[], object]:
    def prepare() -> None:
        Path("p.csv").write_text(f"content,style,name\n{rows}")
        for picture in pictures:
            mixed(picture, 0.1)

    return prepare


def wide() -> None:
    Image.new("RGB", (96, 48), "red").save("wide.png")


ROW = "data/content-images/chelsea.png,data/style-images/night_cafe.png,"
GIVEN = ["--content", "chelsea", "--style", "night_cafe", "--output", "out/a.png"]
BAD: dict[str, tuple[Callable[[], object], list[str], str]] = {
    "nothing": (list, [], r"no output image was given; name a file with --output"),
    "no content": (list, GIVEN[2:], r"no content image was given; name a file with --content"),
    "no such style": (list, [*GIVEN, "--style", "nope"], r"style image nope is neither here nor in data/style-images"),
    "no such picture": (list, [*GIVEN, "--output", "out/c.png"], r"out/c\.png: "),
    "counts": (
        list,
        [*GIVEN, "--output", "out", "out/a.png", "--style", "night_cafe", "pere_tanguy"],
        r"3 outputs and 2 pairs of content and style image: as many of both, or one pair",
    ),
    "more contents than outputs": (
        list,
        [*GIVEN, "--content", "data/content-images"],
        r"1 outputs and 2 pairs of content and style image: as many of both, or one pair",
    ),
    "other proportions": (
        wide,
        [*GIVEN, "--output", "wide.png"],
        r"wide\.png: 96x48 px, its content image data/content-images/chelsea\.png 96x64 px: other proportions",
    ),
    "unknown score": (list, [*GIVEN, "--scores", "outline,nonsense"], r"unknown score 'nonsense'; known are outline"),
    "unreadable picture": (
        lambda: Path("out/b.png").write_text("hello"),
        [*GIVEN, "--output", "out"],
        r"out/b\.png: is not an image",
    ),
    "style scale": (list, [*GIVEN, "--style_scale", "0"], r"style_scale must be a finite number above 0, got 0"),
    "infinite style scale": (
        list,
        [*GIVEN, "--style_scale", "inf"],
        r"style_scale must be a finite number above 0, got inf",
    ),
    "style scale not a number": (list, [*GIVEN, "--style_scale", "big"], r"--style_scale: .*big"),
    "unknown option": (list, [*GIVEN, "--sise", "3"], r"[Uu]nrecognized arguments: --sise 3"),
    "no write permission": (list, [*GIVEN, "--results", "/proc/nowhere/x"], r"/proc/nowhere: cannot create files"),
    "pairs and content": (pairs_csv(f"{ROW}a\n"), ["--pairs", "p.csv", *GIVEN], r"pairs p\.csv names the images"),
    "pairs and a picture": (
        pairs_csv(f"{ROW}a\n"),
        ["--pairs", "p.csv", "--output", "out/a.png"],
        r"with pairs, output must be the folder that holds a picture for each, got out/a\.png",
    ),
    "pairs alone": (pairs_csv(f"{ROW}a\n"), ["--pairs", "p.csv"], r"with pairs, output must be the folder .* got none"),
    "a pair without picture": (
        pairs_csv(f"{ROW}a\n{ROW}c\n"),
        ["--pairs", "p.csv", "--output", "out"],
        r"out: has 0 pictures called c, expected one",
    ),
    "a pair of two pictures": (
        pairs_csv(f"{ROW}c\n", "out/c.jpg", "out/c.bmp"),
        ["--pairs", "p.csv", "--output", "out"],
        r"out: has 2 pictures called c, expected one",
    ),
    "a pair of another's picture": (
        pairs_csv(f"{ROW}c\n", "out/c.d.png"),
        ["--pairs", "p.csv", "--output", "out"],
        r"out: has 0 pictures called c, expected one",
    ),
    "no such list": (list, ["--pairs", "p.csv", "--output", "out"], r"p\.csv"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_in_one_line_and_exit_code_2(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    prepare, options, message = BAD[case]
    prepare()
    before = files()
    assert main(["score", *options]) == 2
    told = capfd.readouterr()
    assert re.fullmatch(rf"nst: error: [^\n]*{message}[^\n]*\n", told.err), told.err
    assert told.out == ""
    assert {path for path in files() - before if path.is_file()} == set()


def test_the_help_lists_the_options(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--help"]) == 0
    told = capfd.readouterr().out
    assert told.startswith("usage: nst score ")
    for name in ("content", "style", "output", "pairs", "style_scale", "scores", "results"):
        assert re.search(rf"^ +--{name}\b", told, re.MULTILINE), name
    for name in ("outline", "palette", "texture", "leak", "lpips", "features", "PATH.csv and PATH.json"):
        assert name in told


def test_the_help_lists_the_names_of_all_scores_without_torch() -> None:
    assert score_names() == sorted(NAMES)
    code = (
        "import sys; from nst_lightning.cli.score import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'torchvision', 'lightning', 'PIL', 'numpy', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
