"""Pairs: how images are paired, lists of pairs, and what the outputs are called."""

from __future__ import annotations

import copy
import os
import pickle
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nst_lightning import images
from nst_lightning.errors import InputError
from nst_lightning.pairs import Pair, chosen, pair_up, read_pairs
from tests.test_files import touch

SAMPLES = Path("samples")


def noise(height: int, width: int, seed: int = 0, channels: int = 3) -> Tensor:
    return torch.rand(channels, height, width, generator=torch.Generator().manual_seed(seed))


# ---- pairing ----


def names_of(pairs: Sequence[Pair]) -> list[str]:
    return [pair.name for pair in pairs]


@pytest.mark.parametrize(
    ("contents", "styles", "names"),
    [
        (["a.jpg"], ["x.jpg"], ["a_x"]),
        (["a.jpg", "b.jpg"], ["x.jpg", "y.jpg"], ["a_x", "b_y"]),
        (["a.jpg", "b.jpg"], ["x.jpg"], ["a_x", "b_x"]),
        (["a.jpg"], ["x.jpg", "y.jpg"], ["a_x", "a_y"]),
        (["a.jpg", "sub/a.png", "b.jpg"], ["x.jpg"], ["a_x_1", "a_x_2", "b_x"]),
        (["a", "b", "a", "a"], ["x", "x", "x", "x_1"], ["a_x_2", "b_x", "a_x_3", "a_x_1"]),
        (["a.b.jpg"], [Path("some/where/x")], ["a.b_x"]),
        (["日本.jpg"], ["Ølberg.png"], ["日本_Ølberg"]),
    ],
)
def test_pairs_are_formed_in_order_under_names_of_their_own(
    contents: list[images.Source], styles: list[images.Source], names: list[str]
) -> None:
    pairs = pair_up(contents, styles)
    assert names_of(pairs) == names
    assert len(set(names)) == len(names)
    assert [pair.content for pair in pairs] == contents * (len(pairs) // len(contents))
    assert [pair.styles for pair in pairs] == [(style,) for style in styles * (len(pairs) // len(styles))]


def test_a_product_pairs_every_content_with_every_style() -> None:
    pairs = pair_up(["a.jpg", "b.jpg"], ["x.jpg", "y.jpg", "z.jpg"], "product")
    assert names_of(pairs) == ["a_x", "a_y", "a_z", "b_x", "b_y", "b_z"]
    assert [pair.content for pair in pairs] == ["a.jpg"] * 3 + ["b.jpg"] * 3
    assert [pair.styles for pair in pairs] == [("x.jpg",), ("y.jpg",), ("z.jpg",)] * 2


@pytest.mark.parametrize(("contents", "styles"), [(1, 1), (1, 3), (3, 1), (2, 2), (3, 2)])
def test_a_product_has_as_many_pairs_as_both_multiplied(contents: int, styles: int) -> None:
    pairs = pair_up([f"{n}.jpg" for n in range(contents)], [f"{n}.jpg" for n in range(styles)], "product")
    assert len(set(names_of(pairs))) == contents * styles


def test_an_unknown_pairing_is_refused() -> None:
    pairing: Any = "Zip"
    with pytest.raises(InputError, match=r"^unknown pairing 'Zip'; known are zip, product$"):
        pair_up(["a.jpg"], ["x.jpg"], pairing)


def test_images_in_memory_are_called_image() -> None:
    assert names_of(pair_up([noise(16, 16), "a.png"], [noise(16, 16)])) == ["image_image", "a_image"]


@pytest.mark.parametrize(("contents", "styles"), [(2, 3), (3, 2)])
def test_several_of_both_have_to_be_equally_many(contents: int, styles: int) -> None:
    message = f"^{contents} content images and {styles} style images: as many of both, or one of either$"
    with pytest.raises(InputError, match=message):
        pair_up(["a.jpg"] * contents, ["x.jpg"] * styles)


@pytest.mark.parametrize(
    ("contents", "names"),
    [
        (["A", "a", "b"], ["A_x_1", "a_x_2", "b_x"]),
        (["Straße", "STRASSE"], ["Straße_x_1", "STRASSE_x_2"]),
        (["\u00e9", "e\u0301", "\u00c9"], ["\u00e9_x_1", "e\u0301_x_2", "\u00c9_x_3"]),
        (["a", "A", "A_X_1"], ["a_x_1", "A_x_2", "A_X_1_x"]),
    ],
)
def test_names_differ_by_more_than_case_and_form(contents: list[images.Source], names: list[str]) -> None:
    assert names_of(pair_up(contents, ["x"])) == names


def test_a_number_does_not_take_a_name_that_differs_by_case() -> None:
    assert names_of(pair_up(["a", "A", "a"], ["x", "x", "X_1"])) == ["a_x_2", "A_x_3", "a_X_1"]


def test_last_dots_do_not_tell_names_apart() -> None:  # Windows drops those of a folder
    assert names_of(pair_up(["a"], ["x", "x..jpg"])) == ["a_x_1", "a_x._2"]


@pytest.mark.parametrize("character", ["a", "é", "日", "🎨"])
def test_long_names_are_shortened_and_stay_unique(character: str) -> None:
    stem = character * (250 // len(character.encode()))
    names = names_of(pair_up([f"{stem}.jpg", f"{stem}.png", *[f"{n}/{stem}.jpg" for n in range(9)]], [f"{stem}.jpg"]))
    width = len(character.encode())
    assert all(200 - width < len(name.encode()) <= 200 for name in names)
    assert len({name.casefold() for name in names}) == 11
    assert [name.lstrip(character) for name in names] == [f"_{n}" for n in range(1, 12)]


def test_shortening_leaves_distinct_names_as_they_are() -> None:
    assert names_of(pair_up(["a" * 198, "b" * 199], ["x"])) == ["a" * 198 + "_x", "b" * 199 + "_"]


def test_a_file_name_that_is_not_utf_8_has_a_name_too() -> None:
    (name,) = names_of(pair_up([os.fsdecode(b"caf\xe9.jpg")], ["x"]))
    assert name == "caf\udce9_x"


def test_many_pairs_of_one_name_are_numbered_in_order() -> None:
    assert names_of(pair_up(["a"] * 20_000, ["x"]))[-1] == "a_x_20000"


def test_a_pair_of_its_own_sets_nothing_and_can_be_copied() -> None:
    pair = pair_up(["a"], ["x"])[0]
    assert (pair.weights, pair.size, pair.steps, pair.init, pair.seed) == ({}, None, None, None, None)
    for copied in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert (copied.content, copied.styles, copied.name, copied.weights) == ("a", ("x",), "a_x", {})


# ---- lists of pairs ----


@pytest.fixture
def listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a list beside a.jpg, b.jpg, x.jpg and photos/c.jpg; the samples s.jpg and t.jpg are elsewhere."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    names = ("a.jpg", "b.jpg", "x.jpg", "photos/c.jpg", "y.jpg", "Änne.jpg")
    touch(*(f"../job/{name}" for name in names), "data/content-images/s.jpg", "data/style-images/t.tar.jpg", "here.jpg")
    return tmp_path / "job" / "pairs.csv"


def read(listing: Path, text: str | bytes) -> tuple[Pair, ...]:
    listing.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_pairs(listing)


def refusal(listing: Path, text: str | bytes) -> str:
    """What reading says, the path of the list as its name alone."""
    with pytest.raises(InputError) as caught:
        read(listing, text)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(str(listing), listing.name).replace(str(listing.parent), "job")


def test_a_line_sets_everything_a_pair_has(listing: Path) -> None:
    header = "content,style,name,content_weight,style_weight,tv_weight,style_weights,size,steps,init,seed"
    (pair,) = read(listing, f"{header}\na.jpg,x.jpg,first,0,1.5e3,.25,2,512,1,gaussian,{2**63 - 1}\n")
    assert (pair.content, pair.styles, pair.name) == (listing.parent / "a.jpg", (listing.parent / "x.jpg",), "first")
    assert pair.style_weights == (2.0,)
    assert pair.weights == {"content": 0.0, "style": 1500.0, "tv": 0.25}
    assert (pair.size, pair.steps, pair.init, pair.seed) == (512, 1, "gaussian", 2**63 - 1)


def test_an_empty_cell_and_a_missing_column_are_the_runs(listing: Path) -> None:
    first, second = read(listing, "tv_weight,seed,style,size,content\n,,x.jpg, ,a.jpg\n0,0,x.jpg,1,b.jpg\n")
    assert (first.name, first.weights, first.size, first.steps, first.init, first.seed) == ("a_x", {}, *[None] * 4)
    assert (second.name, second.weights, second.size, second.seed) == ("b_x", {"tv": 0.0}, 1, 0)


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_separators_line_ends_and_the_mark_of_utf_8(listing: Path, delimiter: str, end: str, bom: bytes) -> None:
    lines = [
        "# who; what, where",
        "",
        "content,style,name",
        "Änne.jpg, x.jpg ,日本",
        ' # "open',
        ",,",
        '"a.jpg","x.jpg",',
    ]
    text = end.join(line if line.lstrip().startswith("#") else line.replace(",", delimiter) for line in lines)
    pairs = read(listing, bom + text.encode())
    assert names_of(pairs) == ["日本", "a_x"]
    assert pairs[0].content == listing.parent / "Änne.jpg"


def test_a_cell_in_quotes_may_hold_the_separator(listing: Path) -> None:
    touch("../job/a,b.jpg", '../job/#"1".jpg')
    pairs = read(listing, 'content,style\n"a,b.jpg","x.jpg"\n"#""1"".jpg", "x.jpg"\n')
    assert names_of(pairs) == ["a,b_x", '#"1"_x']


def test_several_styles_are_separated_by_a_bar(listing: Path) -> None:
    (pair,) = read(listing, "content,style\na.jpg,x.jpg | y.jpg|t.tar\n")
    assert pair.styles == (listing.parent / "x.jpg", listing.parent / "y.jpg", Path("data/style-images/t.tar.jpg"))
    assert pair.name == "a_x_y_t.tar"


def test_paths_are_relative_to_the_list_and_bare_names_are_looked_up(listing: Path) -> None:
    text = f"content,style\nphotos/c.jpg,../job/x.jpg\n{listing.parent / 'a.jpg'},t.tar.jpg\ns,t.tar\n"
    pairs = read(listing, text)
    assert [pair.content for pair in pairs] == [
        listing.parent / "photos/c.jpg",
        listing.parent / "a.jpg",
        Path("data/content-images/s.jpg"),
    ]
    assert pairs[2].styles == (Path("data/style-images/t.tar.jpg"),)


def test_a_list_in_the_working_directory(listing: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(listing, "content,style\na.jpg,x.jpg\n")
    monkeypatch.chdir(listing.parent)
    (pair,) = read_pairs("pairs.csv")
    assert pair.content == Path("a.jpg")


def test_names_that_are_made_up_do_not_take_those_given(listing: Path) -> None:
    lines = ("a.jpg,x.jpg,", "a.jpg,x.jpg,", "b.jpg,x.jpg,A_X_2", "b.jpg,x.jpg,", "b.jpg,y.jpg,B_x", "b.jpg,y.jpg,")
    pairs = read(listing, "\n".join(("content,style,name", *lines)))
    assert names_of(pairs) == ["a_x_1", "a_x_3", "A_X_2", "b_x_1", "B_x", "b_y"]


def test_long_names_that_are_made_up_are_shortened(listing: Path) -> None:
    (pair,) = read(listing, f"content,style\na.jpg,{'|'.join(['x.jpg'] * 300)}\n")
    assert len(pair.styles) == 300
    assert pair.name == ("a" + "_x" * 300)[:200]


@pytest.mark.parametrize(
    "name", ["日" * 66, "a" * 200, "a b", "a_(1)", "ünï-cödé", "a.b", "'", "-", "cone", "a_run", "com", "مرحبا"]
)
def test_names_that_are_allowed(listing: Path, name: str) -> None:
    assert names_of(read(listing, f"content,style,name\na.jpg,x.jpg,{name}\n")) == [name]


NAME = r"""name must be at most 200 bytes, no device's name, without control characters and " * / : < > ? \ |, """
NAME += "and neither begin with _run or a dot nor end with one, got "


@pytest.mark.parametrize(
    "name",
    [
        *(f"a{character}b" for character in "/\\<>:|?*\t\x1f\x7f\x85"),
        *". .. .a a. a... con NUL Com1.b lpt9 _run _run_rank1".split(),
        "a\u202egnp",
        "a" * 201,
        "日" * 67,
    ],
)
def test_a_name_that_is_no_file_name_is_refused(listing: Path, name: str) -> None:
    assert refusal(listing, f"content;style;name\n\na.jpg;x.jpg;{name}\n") == f"pairs.csv line 3: {NAME}{name!r}"


def test_a_name_with_a_double_quote_is_refused(listing: Path) -> None:
    assert refusal(listing, 'content,style,name\na.jpg,x.jpg,a"b\n') == f"""pairs.csv line 2: {NAME}'a"b'"""


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("Night", "nIGHT"), ("Straße", "STRASSE"), ("\u00e9", unicodedata.normalize("NFD", "\u00e9"))],
)
def test_a_name_that_another_pair_has_is_refused(listing: Path, first: str, second: str) -> None:
    text = f"content,style,name\na.jpg,x.jpg,{first}\n# -\nb.jpg,x.jpg,\nb.jpg,x.jpg,{second}\n"
    message = f"name must differ from every other by more than case, got {second!r} after {first!r} on line 2"
    assert refusal(listing, text) == f"pairs.csv line 5: {message}"


@pytest.mark.parametrize(
    ("column", "values", "allowed"),
    [
        (
            "size",
            ["0", "-1", "abc", "1.5", "nan", "1e3", "inf", "9" * 400, "9" * 5000],
            "a whole number from 1 to 2**31 - 1",
        ),
        ("steps", ["0", "-5", "many", "0.5"], "a whole number from 1 to 2**31 - 1"),
        ("seed", ["-1", str(2**63), "1.0", "x"], "a whole number from 0 to 2**63 - 1"),
        ("content_weight", ["-1", "nan", "inf", "1e999", "heavy", "-1e-9"], "a finite number, 0 or above"),
        ("style_weight", ["-inf", "1 000"], "a finite number, 0 or above"),
        ("strength", ["-0.1", "1.1", "nan", "half"], "a number from 0 to 1"),
        ("tv_weight", ["0,5", "NaN"], "a finite number, 0 or above"),
    ],
)
def test_a_value_out_of_range_is_refused(listing: Path, column: str, values: list[str], allowed: str) -> None:
    for value in values:
        text = f"content;style;{column}\na.jpg;x.jpg;\n#\n\n ; ;\n\na.jpg;x.jpg; {value}\n"
        assert refusal(listing, text) == f"pairs.csv line 7: {column} must be {allowed}, got {value!r}"


def test_several_styles_have_weights(listing: Path) -> None:
    header = "content,style,style_weights"
    weighted, silent, equal = read(
        listing, f"{header}\na.jpg,x.jpg|y.jpg,0.7 | 0.3\nb.jpg,x.jpg|y.jpg,1|0\nb.jpg,x.jpg|y.jpg,\n"
    )
    assert (weighted.style_weights, silent.style_weights, equal.style_weights) == ((0.7, 0.3), (1.0, 0.0), ())
    assert weighted.settings == {"style_weights": "0.7|0.3"}
    assert equal.settings == {}


STYLE_WEIGHTS = "style_weights must be a finite number, 0 or above, for each style, and one of them above 0, got "


@pytest.mark.parametrize("cell", ["0.7", "1|1|1", "0|0", "1|-1", "1|nan", "1|inf", "1e308|1e308", "1|x", "1|", "|"])
def test_weights_that_do_not_fit_the_styles_are_refused(listing: Path, cell: str) -> None:
    text = f"content,style,style_weights\na.jpg,x.jpg|y.jpg,{cell}\n"
    assert refusal(listing, text) == f"pairs.csv line 2: {STYLE_WEIGHTS}{cell!r}"


@pytest.mark.parametrize("weights", [(1.0,), (1.0, -1.0), (0.0, 0.0), (1.0, float("nan"))])
def test_a_pair_made_by_hand_is_held_to_the_same_weights(weights: tuple[float, ...]) -> None:
    with pytest.raises(InputError) as caught:
        Pair("a.jpg", ("x.jpg", "y.jpg"), "a", style_weights=weights)
    assert str(caught.value) == f"pair a: {STYLE_WEIGHTS}{weights}"
    assert Pair("a.jpg", ("x.jpg", "y.jpg"), "a", style_weights=(0.0, 2.0)).style_weights == (0.0, 2.0)


def test_an_unknown_init_is_refused(listing: Path) -> None:
    known = "known are content, style, gaussian, uniform, mean, grey, painter:FILE, or a picture's file"
    message = f"pairs.csv line 2: unknown init 'job/noise'; {known}"
    assert refusal(listing, "content,style,init\na.jpg,x.jpg,noise\n") == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", ": is empty; expected a line with the columns, e.g. content,style,name"),
        (b"\xef\xbb\xbf\n# content\n \n", ": is empty; expected a line with the columns, e.g. content,style,name"),
        ("content,style\n#a\n,\n", ": has no pairs; expected a line for each below that of the columns"),
        ("content\na.jpg\n", " line 1: column 'style' is missing; content and style are required"),
        ("#\nstyle,size\n", " line 2: column 'content' is missing; content and style are required"),
        (
            "content,style,Size\n",
            " line 1: unknown column 'Size'; known are content, style, name, content_weight, style_weight, tv_weight, "
            "temporal_weight, strength, style_weights, style_scale, size, steps, init, seed, before, colors, "
            "content_mask, style_mask, regions, content_weights",
        ),
        (
            "content,style,\n",
            " line 1: unknown column ''; known are content, style, name, content_weight, style_weight, tv_weight, "
            "temporal_weight, strength, style_weights, style_scale, size, steps, init, seed, before, colors, "
            "content_mask, style_mask, regions, content_weights",
        ),
        ("content,style,style\n", " line 1: column 'style' occurs 2 times; expected it once"),
        ("content,style\na.jpg\n", " line 2: expected 2 cells separated by ',', as in the header, got 1"),
        ("content;style\n\na.jpg;x.jpg;\n", " line 3: expected 2 cells separated by ';', as in the header, got 3"),
        ("content\tstyle\na.jpg,x.jpg\n", " line 2: expected 2 cells separated by '\\t', as in the header, got 1"),
        (
            'content,style\na.jpg,"x.jpg\n',
            " line 2: cannot be split into cells (unexpected end of data); is a double quote left open?",
        ),
        ("content,style\n,x.jpg\n", " line 2: content must name an image, got ''"),
        ("content,style\na.jpg,\n", " line 2: style must name an image, got ''"),
        ("content,style\na.jpg,x.jpg||y.jpg\n", " line 2: style must name an image, got 'x.jpg||y.jpg'"),
        (
            "content,style\nphotos/none.jpg,x.jpg\n",
            " line 2: content must name an image, got 'photos/none.jpg'; there is no file 'job/photos/none.jpg'",
        ),
        (
            "content,style\nhere.jpg,x.jpg\n",
            " line 2: content image 'here.jpg' is neither in job nor in data/content-images; there are s.jpg",
        ),
        (
            "content,style\na.jpg,s\n",
            " line 2: style image 's' is neither in job nor in data/style-images; there are t.tar.jpg",
        ),
        (
            "content,style\nphotos,x.jpg\n",
            " line 2: content image 'photos' is neither in job nor in data/content-images; there are s.jpg",
        ),
        (
            "content,style\n*.jpg,x.jpg\n",
            " line 2: content image '*.jpg' is neither in job nor in data/content-images; there are s.jpg",
        ),
        (
            "content,style\n\0.jpg,x.jpg\n",
            " line 2: has a null character, which no name has",
        ),
        (b"content,style\n\xe4.jpg,x.jpg\n", " line 2: byte 0xe4 is not UTF-8; save the file as UTF-8"),
        (
            b"\xef\xbb\xbfcontent,style\na.jpg,x.jpg\nb\xff.jpg,x.jpg\n",
            " line 3: byte 0xff is not UTF-8; save the file as UTF-8",
        ),
        ("content,style".encode("utf-16"), " line 1: byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused_by_its_line(listing: Path, text: str | bytes, message: str) -> None:
    assert refusal(listing, text) == f"pairs.csv{message}"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("none.csv", "No such file or directory"), ("photos", "Is a directory"), ("\0", "embedded null .*")],
)
def test_a_list_that_cannot_be_opened_is_refused(listing: Path, name: str, reason: str) -> None:
    message = rf"cannot be opened \({reason}\); expected a CSV file of pairs$"
    with pytest.raises(InputError, match=message):
        read_pairs(listing.parent / name)


# ---- the pairs of a run ----


@pytest.mark.usefixtures("listing")
def test_a_run_names_its_images_or_a_list_that_does(listing: Path) -> None:
    assert names_of(chosen("s", ["t.tar", "here.jpg"])) == ["s_t.tar", "s_here"]
    assert names_of(chosen(["s", "here.jpg"], ["t.tar", "here.jpg"], "product"))[1:3] == ["s_here", "here_t.tar"]
    listing.write_text("content,style,name\na.jpg,x.jpg,first\n")
    assert names_of(chosen(None, None, "zip", listing)) == ["first"]


@pytest.mark.parametrize(("content", "style"), [("s", None), (None, "t.tar"), ("s", "t.tar")])
def test_images_beside_a_list_are_refused(content: str | None, style: str | None) -> None:
    with pytest.raises(InputError, match=r"^pairs p\.csv names the images already: leave out content and style$"):
        chosen(content, style, listed="p.csv")


@pytest.mark.usefixtures("listing")
def test_a_run_without_an_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"^no style image was given; name a file with --style"):
        chosen("s", None)


def test_a_frame_names_the_one_before_which_need_not_be_painted_yet(tmp_path: Path, content_png: Path) -> None:
    (tmp_path / "a.png").write_bytes(content_png.read_bytes())
    listed = tmp_path / "pairs.csv"
    listed.write_text("content,style,before,temporal_weight\na.png,a.png,run/one.png | a.png,3\na.png,a.png,,\n")
    frame, still = read_pairs(listed)
    assert frame.before == (tmp_path / "run/one.png", tmp_path / "a.png")
    assert frame.weights == {"temporal": 3}
    assert still.before is None
    listed.write_text("content,style,before\na.png,a.png,one.png\n")
    with pytest.raises(InputError, match=r"line 2: before must name an image, got 'one\.png'"):
        read_pairs(listed)
