"""A sweep's file, and the cells that it asks for."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nst_lightning import pairs
from nst_lightning.errors import InputError
from nst_lightning.study import experiment
from nst_lightning.study.experiment import Experiment

Written = Callable[[str], Path]

pytestmark = pytest.mark.usefixtures("workplace")

BASE = "base: {content: [chelsea, temple], style: [night_cafe, pere_tanguy], size: 64, steps: 4}\n"


def read(path: Path, **overrides: str) -> Experiment:
    return experiment.read(path, overrides)


def names(found: Experiment) -> list[str]:
    return [cell.name for cell in found.cells()]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("axis: {init: [content]}\n" + BASE, "unknown key 'axis'; known are title, about, command, base, axes"),
        ("1: x\naxis: {}\n" + BASE, "unknown key 1; known are"),
        (BASE, "axes must name at least one option with values"),
        (BASE + "axes: {}", "axes must name at least one option"),
        (BASE + "axes: [init]", r'axes must be an object, got \["init"\]'),
        (BASE + "axes: {init: []}", "axes must name at least one option with values"),
        (BASE + "axes: {init: content}", r'axes\.init must be a list, got "content"'),
        (BASE + "axes: {init: [style, content, style]}", r"axes\.init has a value twice; give each a label of its own"),
        (BASE + "axes: {weights: [a.pth, A.pth]}", r"axes\.weights has a value twice"),
        (BASE + "axes: {weights: [a/b, a:b]}", r"axes\.weights has a value twice"),
        (BASE + "axes: {tv_weight: [0.5, '0_5']}", r"axes\.tv_weight has a value twice"),
        (BASE + "axes: {seed: [0, 1]}", r"axes\.seed: a sweep sets seed itself; say seeds"),
        (
            BASE + "axes: {init: [style], start: [{label: a, init: content}]}",
            r"axes\.start: init is set by axes\.init too",
        ),
        (BASE + "axes: {size: [64, 128]}", r"base\.size: every value of axes\.size replaces it; leave it out"),
        (BASE + "axes: {init: [style]}\nseeds: 3", "seeds must be a list, got 3"),
        (BASE + "axes: {init: [style]}\nseeds: []", "axes must name at least one option with values, and seeds"),
        (BASE + "axes: {init: [style]}\nseeds: [1.5]", r"seeds\[0\] must be a whole number, got 1\.5"),
        (BASE + "axes: {init: [style]}\nseeds: [true]", r"seeds\[0\] must be a whole number, got true"),
        (
            BASE + "axes: {init: [style]}\nseeds: [1, 1]",
            "two cells would be called 'chelsea_night_cafe__init-style__se",
        ),
        (BASE + "axes: {init: [style]}\ncommand: score", 'command must be one of fit, reconstruct, got "score"'),
        ("base: [size]\naxes: {init: [style]}", r'base must be an object, got \["size"\]'),
        ("base: {seed: 3}\naxes: {init: [style]}", r"base: a sweep sets seed itself; say seeds"),
        ("base: {output: here}\naxes: {init: [style]}", r"base: a sweep sets output itself; say --output"),
        ("- base\n- axes\n", r'must be an object, got \["base", "axes"\]'),
        ("", "is missing; expected an object"),
        ("base: {size: 64\n", r"is no YAML \(while parsing a flow mapping"),
        ("command: reconstruct\n" + BASE + "axes: {init: [gaussian]}", "command reconstruct needs the axis layers"),
        (
            "command: reconstruct\nagainst_time: true\n" + BASE + "axes: {layers: [relu1_1]}",
            "command reconstruct needs the axis layers, and has no against_time",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_file_and_key(text: str, error: str, written: Written) -> None:
    path = written(text)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}:? {error}"):
        read(path)


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read \(FileNotFoundError\); expected a sweep's YAML"):
        read(tmp_path / "none.yaml")
    (tmp_path / "picture.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match=r"picture\.yaml: cannot be read \(UnicodeDecodeError\)"):
        read(tmp_path / "picture.yaml")


def test_a_list_of_pairs_that_is_not_there_is_named(written: Written) -> None:
    with pytest.raises(InputError, match=r"none\.csv: cannot be opened \(No such file or directory\)"):
        read(written("base: {pairs: none.csv}\naxes: {init: [style]}"))


def test_cells_whose_names_would_be_one_are_refused(written: Written, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps/list.csv").write_text("content,style,name\nchelsea,night_cafe,a b\ntemple,night_cafe,a-b\n")
    with pytest.raises(InputError, match=r"two cells would be called 'a-b__init-style'; give pairs and values other"):
        read(written("base: {pairs: list.csv}\naxes: {init: [style]}"))


# ---- cells ----


def test_cells_are_the_product_of_axes_pairs_and_seeds(written: Written) -> None:
    found = read(written(BASE + "axes: {init: [content, style], style_weight: [1, 6.3, 100]}\nseeds: [0, 7]"))
    cells = list(found.cells())
    keys = {(*cell.values.values(), cell.pair.name, cell.seed) for cell in cells}
    assert len(cells) == len(keys) == 2 * 3 * 2 * 2
    assert {type(cell.seed) for cell in cells} == {int}
    assert keys == {
        (init, weight, pair, seed)
        for init in ("content", "style")
        for weight in ("1", "6.3", "100")
        for pair in ("chelsea_night_cafe", "temple_pere_tanguy")
        for seed in (0, 7)
    }
    assert cells[0].name == "chelsea_night_cafe__init-content__style_weight-1__seed-0"


def test_names_are_unique_and_can_be_files(written: Written, tmp_path: Path) -> None:
    labels = ["10000:10", "a/b", "x|y", 'say "so"', "café", "1e-3", "море", "небо"]
    listed = ", ".join(f"{{label: {label!r}, style_weight: {n}}}" for n, label in enumerate(labels))
    found = names(read(written(BASE + f"axes: {{beta: [{listed}]}}\nseeds: [1, 2]")))
    assert len({name.casefold() for name in found}) == len(found) == len(labels) * 2 * 2
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in found)
    for name in found:
        (tmp_path / name).touch()


def test_a_single_seed_is_not_in_the_names(written: Written) -> None:
    assert names(read(written(BASE + "axes: {init: [style]}\nseeds: [5]"))) == [
        "chelsea_night_cafe__init-style",
        "temple_pere_tanguy__init-style",
    ]


def test_labels_are_those_given_or_the_values(written: Written) -> None:
    found = read(
        written(
            BASE + "axes:\n"
            "  style_layers: [3, [relu1_1, relu2_1]]\n"
            "  beta: [{label: '10000:10', style_weight: 100, tv_weight: 0}, 5]\n"
        )
    )
    assert {axis: [value.label for value in values] for axis, values in found.axes.items()} == {
        "style_layers": ["3", "relu1_1, relu2_1"],
        "beta": ["10000:10", "5"],
    }
    assert found.axes["style_layers"][1].options == {"style_layers": ["relu1_1", "relu2_1"]}
    assert found.axes["beta"][0].options == {"style_weight": 100, "tv_weight": 0}


def test_title_is_the_files_name_and_about_empty_where_there_is_none(written: Written) -> None:
    found = read(written(BASE + "title:\nabout:\naxes: {init: [style]}"))
    assert (found.title, found.about, found.command, found.seeds, found.against_time) == (
        "sweep",
        "",
        "fit",
        (0,),
        False,
    )


def test_what_a_pair_can_have_of_its_own_goes_into_its_row_and_all_else_into_the_run(written: Written) -> None:
    own = {
        "content_weight": 10.0,
        "style_weight": 3,
        "tv_weight": 0.5,
        "strength": 0.5,
        "init": "gaussian",
        "size": 48,
        "steps": 6,
    }
    assert {*own, "seed"} == experiment.OF_A_PAIR
    value = {"label": "all", **own, "backbone": "vgg16", "model.pooling": "avg"}
    found = read(
        written(f"base: {{content: chelsea, style: night_cafe}}\naxes: {{many: [{value}]}}\nseeds: [4]"),
    )
    (cell,) = found.cells()
    assert cell.of_run == {"backbone": "vgg16", "model.pooling": "avg"}
    assert cell.row == {
        "name": "chelsea_night_cafe__many-all",
        "content": str(Path("data/content-images/chelsea.png").absolute()),
        "style": str(Path("data/style-images/night_cafe.png").absolute()),
        **{name: str(value) for name, value in own.items()},
        "seed": "4",
    }
    assert cell.group == "many-all"


def test_the_row_is_a_line_of_a_list_of_pairs(written: Written, tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    listed = "content,style,name,tv_weight,size,steps,init\nchelsea,night_cafe|pere_tanguy,both,0.25,32,9,style\n"
    (tmp_path / "sweeps/list.csv").write_text(listed)
    text = "base: {pairs: list.csv}\naxes: {style_weight: [1, 6.3], init: [gaussian, content]}\nseeds: [0, 1]"
    cells = list(read(written(text)).cells())
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(cells[0].row))
        writer.writeheader()
        writer.writerows(cell.row for cell in cells)
    found = pairs.read_pairs(tmp_path / "rows.csv")
    assert [pair.name for pair in found] == [cell.name for cell in cells]
    for pair, cell in zip(found, cells, strict=True):
        assert [Path(str(style)).name for style in pair.styles] == ["night_cafe.png", "pere_tanguy.png"]
        assert pair.weights == {"style": float(cell.values["style_weight"]), "tv": 0.25}
        assert (pair.size, pair.steps, pair.init, pair.seed) == (32, 9, cell.values["init"], cell.seed)


def test_cells_that_differ_in_what_a_pair_can_have_of_its_own_have_one_group(written: Written) -> None:
    found = read(written(BASE + "axes: {init: [content, style], tv_weight: [0, 1]}\nseeds: [0, 1]"))
    assert {cell.group for cell in found.cells()} == {"all"}


def test_a_group_is_called_after_the_axes_that_a_pair_cannot_have_of_its_own(written: Written) -> None:
    found = read(written(BASE + "axes: {init: [content, style], model.pooling: [max, avg], weights: [a.pth]}"))
    # Without dots: what follows one would be a picture's suffix.
    assert {cell.group for cell in found.cells()} == {
        "model_pooling-max__weights-a_pth",
        "model_pooling-avg__weights-a_pth",
    }


# ---- overrides ----


def test_overrides_replace_options_of_the_base_and_add_to_them(written: Written) -> None:
    found = read(written(BASE + "axes: {init: [style]}"), size="32", devices="2")
    assert found.base == {"size": "32", "steps": 4, "devices": "2"}


def test_an_override_of_the_seed_replaces_the_seeds(written: Written) -> None:
    path = written(BASE + "axes: {init: [style]}\nseeds: [0, 1]")
    assert read(path, seed="7").seeds == (7,)
    with pytest.raises(InputError, match=r'seeds\[0\] must be a whole number, got "x"'):
        read(path, seed="x")


def test_an_override_of_an_axis_is_refused(written: Written) -> None:
    with pytest.raises(InputError, match=r"base\.init: every value of axes\.init replaces it"):
        read(written(BASE + "axes: {init: [style]}"), init="content")


def test_an_option_that_only_some_values_set_can_be_in_the_base(written: Written) -> None:
    path = written(
        "base: {content: chelsea, style: night_cafe, style_weight: 5}\n"
        "axes: {what: [{label: plain, init: content}, {label: heavy, style_weight: 9}]}"
    )
    found = read(path)
    assert found.base == {"style_weight": 5}
    assert [cell.options for cell in found.cells()] == [{"init": "content"}, {"style_weight": 9}]


def test_the_list_of_pairs_is_looked_up_beside_the_file_first(written: Written, tmp_path: Path) -> None:
    path = written("base: {pairs: list.csv}\naxes: {init: [style]}")
    (tmp_path / "list.csv").write_text("content,style\nchelsea,pere_tanguy\n")
    assert [pair.name for pair in read(path).pairs] == ["chelsea_pere_tanguy"]
    (tmp_path / "sweeps/list.csv").write_text("content,style\ntemple,night_cafe\n")
    assert [pair.name for pair in read(path).pairs] == ["temple_night_cafe"]
    # What is typed is where one is.
    assert [pair.name for pair in read(path, pairs="list.csv").pairs] == ["chelsea_pere_tanguy"]


def test_other_images_replace_the_list_of_pairs_and_the_other_way_round(written: Written, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("content,style\ntemple,night_cafe\n")
    path = written("base: {pairs: list.csv, size: 64}\naxes: {init: [style]}")
    found = read(path, content="chelsea", style="pere_tanguy")
    assert [pair.name for pair in found.pairs] == ["chelsea_pere_tanguy"]
    assert found.base == {"size": 64}
    with pytest.raises(InputError, match="no style image was given"):
        read(path, content="chelsea")
    with pytest.raises(InputError, match="names the images already: leave out content and style"):
        read(path, pairs="list.csv", content="chelsea")
    other = read(written(BASE + "axes: {init: [style]}"), pairs="list.csv")
    assert [pair.name for pair in other.pairs] == ["temple_night_cafe"]
    one = read(written(BASE + "axes: {init: [style]}"), content="temple")
    assert [pair.name for pair in one.pairs] == ["temple_night_cafe", "temple_pere_tanguy"]


def test_arguments_are_typed_with_lists_as_json() -> None:
    options: experiment.Options = {"size": 64, "style_layers": ["relu1_1", "relu2_1"], "weights": "a b.pth"}
    assert experiment.arguments(options) == ["--size=64", '--style_layers=["relu1_1", "relu2_1"]', "--weights=a b.pth"]
