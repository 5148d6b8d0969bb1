"""Images by their names: what names, folders, patterns and samples stand for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from nst_lightning.errors import InputError
from nst_lightning.files import Images, find

SAMPLES = Path("samples")


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))


# ---- looking up names ----


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_jpeg: Path, content_png: Path) -> Path:
    """A working directory with b.png in it, and a.jpg, b.png and b.tar.jpg among its samples."""
    for name in ("b.png", "samples/a.jpg", "samples/b.png", "samples/b.tar.jpg"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(content_jpeg if target.suffix == ".jpg" else content_png, target)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def touch(*names: str) -> None:
    """Makes files in the working directory, which are looked up and not read."""
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("a.jpg", [SAMPLES / "a.jpg"]),
        ("a", [SAMPLES / "a.jpg"]),
        ("b", [SAMPLES / "b.png"]),
        ("b.tar", [SAMPLES / "b.tar.jpg"]),
        ("b.png", [Path("b.png")]),
        (Path("a"), [SAMPLES / "a.jpg"]),
        (["b.png", "a", "a"], [Path("b.png"), SAMPLES / "a.jpg", SAMPLES / "a.jpg"]),
        (("a", "samples/b.png"), [SAMPLES / "a.jpg", SAMPLES / "b.png"]),
        # Reading these says what is wrong with them.
        ("elsewhere/a.jpg", [Path("elsewhere/a.jpg")]),
        ("", [Path()]),
    ],
)
def test_a_name_is_looked_up_here_and_then_among_the_samples(given: Images, found: list[Path]) -> None:
    assert find("content", given, SAMPLES) == found


def test_a_folder_of_the_same_name_does_not_hide_a_sample(workspace: Path) -> None:
    for folder in ("a", "samples/a", "samples/a.d"):
        (workspace / folder).mkdir()
    assert find("content", "a", SAMPLES) == [SAMPLES / "a.jpg"]


def test_an_absolute_path_is_taken_as_it_is(workspace: Path) -> None:
    assert find("content", str(workspace / "b.png"), SAMPLES) == [workspace / "b.png"]


def test_images_in_memory_are_taken_as_they_are() -> None:
    tensor, picture = noise(20, 20), Image.new("RGB", (20, 20))
    assert [id(source) for source in find("content", [tensor, picture], SAMPLES)] == [id(tensor), id(picture)]


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "no style image was given; name a file with --style, e.g. one of samples"),
        (["a", None], "no style image was given; name a file with --style, e.g. one of samples"),
        ([], "style is an empty list; name an image, or several"),
        *(
            (name, f"style image {name} is neither here nor in samples; there are a.jpg, b.png, b.tar.jpg")
            for name in ("nobody", "a.png", "b.tar.j", "x" * 300, "\0")
        ),
    ],
)
def test_a_name_that_stands_for_no_file_is_refused_with_those_there_are(given: Images, message: str) -> None:
    with pytest.raises(InputError) as caught:
        find("style", given, SAMPLES)
    assert str(caught.value) == message


def test_a_missing_folder_of_samples_lists_nothing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^content image a is neither here nor in .*nowhere$"):
        find("content", "a", tmp_path / "nowhere")


# ---- folders and patterns ----


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("given", ["photos", "photos/", Path("photos"), "./photos"])
def test_a_folder_stands_for_its_images_in_natural_order(given: Images) -> None:
    names = ["1.png", "2.JPG", "10.png", "Änne.webp", "img2.jpeg", "IMG10.tiff", "img010.gif", "日本.bmp"]
    touch(
        *(f"photos/{name}" for name in (*names, ".hidden.jpg", "._1.png", "notes.txt", "film.mpg", "png", "sub/3.png"))
    )
    Path("photos/folder.png").mkdir()
    found = [path.name for path in find("content", given, SAMPLES) if isinstance(path, Path)]
    assert found == ["1.png", "2.JPG", "10.png", "img2.jpeg", "img010.gif", "IMG10.tiff", "Änne.webp", "日本.bmp"]


@pytest.mark.usefixtures("workspace")
def test_the_folder_that_we_are_in_is_one_too() -> None:
    assert find("content", ".", SAMPLES) == [Path("b.png")]
    assert find("content", ["samples", "b.png"], SAMPLES)[-2:] == [SAMPLES / "b.tar.jpg", Path("b.png")]


@pytest.mark.usefixtures("workspace")
def test_a_folder_without_images_is_refused() -> None:
    touch("photos/.hidden.jpg", "photos/notes.txt", "photos/sub/1.png")
    allowed = "expected files with the suffix of an image, not hidden and not in a subfolder"
    with pytest.raises(InputError, match=rf"^style folder photos has no image in it; {allowed}$"):
        find("style", ["b.png", "photos"], SAMPLES)


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("p/*.jpg", ["p/1.jpg", "p/2.jpg", "p/10.jpg"]),
        ("p/?.jpg", ["p/1.jpg", "p/2.jpg"]),
        ("p/[!1]*.jpg", ["p/2.jpg"]),
        ("p/*", ["p/1.jpg", "p/2.jpg", "p/10.jpg", "p/notes.txt"]),
        ("p/**/*.jpg", ["p/1.jpg", "p/2.jpg", "p/10.jpg", "p/q/3.jpg", "p/q/r/4.jpg"]),
        ("p/**/**/3.jpg", ["p/q/3.jpg"]),
        ("**/3.*", ["p/q/3.jpg"]),
        ("*.png", ["b.png"]),
        ("*", ["b.png"]),
        ("p/../*/1*", ["p/../p/1.jpg", "p/../p/10.jpg"]),
        ("{root}/p/?.jpg", ["{root}/p/1.jpg", "{root}/p/2.jpg"]),
    ],
)
def test_a_pattern_stands_for_the_files_that_it_matches(workspace: Path, pattern: str, found: list[str]) -> None:
    touch("p/10.jpg", "p/1.jpg", "p/2.jpg", "p/notes.txt", "p/.hidden.jpg", "p/q/3.jpg", "p/q/r/4.jpg")
    expected = [Path(name.format(root=workspace)) for name in found]
    assert find("content", pattern.format(root=workspace), SAMPLES) == expected


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    "pattern",
    ["[a]", "*.gif", "samples/x*", "sample?", "nowhere/*.jpg", "/nowhere/*", "a\0/*", "[z-a]*", "x" * 300 + "*"],
)
def test_a_pattern_that_matches_no_file_is_refused(pattern: str) -> None:
    with pytest.raises(InputError) as caught:
        find("style", pattern, SAMPLES)
    allowed = "matches no file; name a file, a folder or another pattern"
    assert str(caught.value) == f"style pattern {pattern!r} {allowed}"


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("p/[1].jpg", ["p/[1].jpg"]),
        ("p/*.jpg", ["p/*.jpg"]),
        ("[b].png", ["[b].png"]),
        ("who?", ["samples/who?.jpg"]),
        ("trip [1]", ["trip [1]/1.jpg", "trip [1]/2.jpg"]),
        ("trip [1]/*1.jpg", ["trip [1]/1.jpg"]),
        ("trip [1]/[2].jpg", ["trip [1]/2.jpg"]),
    ],
)
def test_a_file_or_folder_whose_name_looks_like_a_pattern_is_itself(given: str, found: list[str]) -> None:
    touch("p/1.jpg", "p/[1].jpg", "p/*.jpg", "[b].png", "samples/who?.jpg", "samples/whom.jpg")
    touch("trip [1]/1.jpg", "trip [1]/2.jpg", "trip 1/3.jpg")
    assert find("content", given, SAMPLES) == [Path(name) for name in found]


@pytest.mark.usefixtures("workspace")
def test_a_list_may_mix_everything_in_its_order() -> None:
    touch("p/1.jpg", "p/2.jpg")
    tensor = noise(16, 16)
    found = find("content", ["p/2*", tensor, "a", "p"], SAMPLES)
    assert found[1] is tensor
    assert [*found[:1], *found[2:]] == [Path("p/2.jpg"), SAMPLES / "a.jpg", Path("p/1.jpg"), Path("p/2.jpg")]
