"""What is typed: short names, images without an option, flags, lists; and what configurations hold."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from nst_lightning import presets
from nst_lightning.__main__ import main
from nst_lightning.cli.arguments import read
from nst_lightning.cli.configuration import parser_of
from nst_lightning.cli.options import known
from nst_lightning.errors import InputError
from nst_lightning.modules import StyleTransfer
from nst_lightning.optim import NAMED
from nst_lightning.schedule import Stage, scheduled

OTHERS = ("optimizer", "resume", "preset", "from")


def parsed(arguments: list[str]) -> Any:  # noqa: ANN401 - a namespace
    return parser_of(StyleTransfer).parse_args(read(arguments).as_arguments())


@pytest.mark.parametrize("name", [name for name in known() if name not in OTHERS])
def test_a_short_name_becomes_its_key_with_either_spelling_of_name_and_value(name: str) -> None:
    value = "7" if known()[name].words is None else "false"
    for typed in ([f"--{name}={value}"], [f"--{name}", value]):
        assert read(typed).options == ((known()[name].key, (value,)),)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ([], ()),
        (["--trainer.max_steps=2"], (("trainer.max_steps", ("2",)),)),
        (["--model.style_weight", "3", "--data.content=x"], (("model.style_weight", ("3",)), ("data.content", ("x",)))),
        (
            ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.lr=1"],
            (("model.optimizer", ("torch.optim.SGD",)), ("model.optimizer.lr", ("1",))),
        ),
        (["--print_config", "--size", "-1"], (("print_config", ()), ("data.size", ("-1",)))),
        (["--overwrite", "-o", "a=b"], (("overwrite", ("true",)), ("output", ("a=b",)))),
        (["--video", "--upscale", "no"], (("video", ("true",)), ("data.upscale", ("no",)))),
        (["--video", "webp", "--overwrite"], (("video", ("webp",)), ("overwrite", ("true",)))),
        (["--scores", "lpips", "outline"], (("scores", ("lpips", "outline")),)),
    ],
)
def test_options_keep_their_order_and_their_values(arguments: list[str], options: tuple[Any, ...]) -> None:
    assert read(arguments).options == options


@pytest.mark.parametrize(
    ("arguments", "content", "style"),
    [
        (["a", "b"], ("a",), ("b",)),
        (["a", "b", "c", "--overwrite"], ("a",), ("b", "c")),
        (["-o", "out", "a", "b"], ("a",), ("b",)),
        (["--overwrite", "a", "b"], ("a",), ("b",)),
        (["a", "c", "--style", "b"], ("a", "c"), ("b",)),
        (["--content=a", "b", "c"], ("a",), ("b", "c")),
        (["--content", "a", "c", "--style", "b"], ("a", "c"), ("b",)),
    ],
)
def test_images_need_no_option(arguments: list[str], content: tuple[str, ...], style: tuple[str, ...]) -> None:
    options = dict(read(arguments).options)
    assert (options["data.content"], options["data.style"]) == (content, style)


@pytest.mark.parametrize("key", ["--optimizer", "--model.optimizer"])
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lbfgs", "nst_lightning.optim.LBFGS"),
        ("LBFGS", "nst_lightning.optim.LBFGS"),
        ("adam", "nst_lightning.optim.Adam"),
        ("torch.optim.Adam", "torch.optim.Adam"),
        ("RMSprop", "RMSprop"),
    ],
)
def test_an_optimizers_short_name_becomes_its_class(key: str, name: str, path: str) -> None:
    assert read([key, name]).options == read([f"{key}={name}"]).options == (("model.optimizer", (path,)),)


@pytest.mark.parametrize("name", NAMED)
def test_the_class_path_of_a_named_optimizer_is_that_of_its_class(name: str) -> None:
    ((_, (path,)),) = read([f"--optimizer={name}"]).options
    module, _, kind = path.rpartition(".")
    assert getattr(import_module(module), kind) is NAMED[name]


@pytest.mark.parametrize("spelling", [["--config"], ["-c"]])
def test_the_command_line_goes_before_configurations_and_they_before_presets(
    spelling: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "f.yaml"
    file.write_text("data: {size: 128, steps: 9}\nmodel: {content_weight: 3.0}")
    study = parsed(["--preset", "study"])
    found = parsed(["--size", "64", *spelling, str(file), "--preset", "study"])
    assert (found.data.size, found.data.steps, found.model.content_weight) == (64, 9, 3)
    assert found.model.style_weight == study.model.style_weight != parsed([]).model.style_weight


def test_short_names_stand_in_a_configuration_too(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        "content: [a, b]\nstyle: s\nsize: 64\npreset: study\noptimizer: adam\noverwrite: true\ndata: {steps: 9}"
    )
    found = parsed(["--config", str(file)])
    assert (found.data.content, found.data.style, found.data.size, found.data.steps) == (["a", "b"], "s", 64, 9)
    assert found.model.optimizer.class_path == "nst_lightning.optim.Adam"
    assert found.model.convention == "absolute"
    assert found.overwrite is True


@pytest.mark.parametrize(
    ("given", "content"),
    [
        (["--content", "a", "--content", "b"], ["a", "b"]),
        (["--content=a", "--style", "s", "--data.content", "[b,c]", "--content=d e"], ["a", "b", "c", "d e"]),
        (["--content", "a"], "a"),
        (["--content", "a", "b", "c"], ["a", "b", "c"]),
    ],
)
def test_images_that_are_named_one_by_one_are_all_taken(given: list[str], content: list[str] | str) -> None:
    assert parsed(given).data.content == content


def test_layers_are_listed_with_commas_or_one_behind_the_other() -> None:
    for given in (["relu1_1,relu2_1"], ["relu1_1", "relu2_1"]):
        assert parsed(["--style_layers", *given]).model.style_layers == "relu1_1,relu2_1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset=1970"], r"^unknown preset '1970'; known are .*study"),
        (["--preset"], r"^--preset needs one of .*study"),
        (["--resume"], r"^--resume needs the folder of a run, e\.g\. data/output-images/photo_painting$"),
        (["--resume", "."], r"^\.: is not the folder of a run, for it has no config\.yaml$"),
        (["--config"], r"^--config needs a file in YAML$"),
        (["--size"], r"^--size needs a value$"),
        (["--size", "--steps", "3"], r"^--size needs a value$"),
        (["--content", "--style", "b"], r"^--content needs a value$"),
        (["--stile", "b"], r"^unknown option --stile: did you mean --style\? nst fit --help lists the options$"),
        (["--iterations=20"], r"^unknown option --iterations: did you mean --steps\?"),
        (["--content_image", "a"], r"^unknown option --content_image: did you mean --content\?"),
        (["--xyzzy"], r"^unknown option --xyzzy: nst fit --help lists the options$"),
        (["--model_weight.x", "1"], r"^unknown option --model_weight\.x:"),
        (["--style_weight", "1e"], r"^--style_weight must be a number, got '1e'$"),
        (["--model.style_weight=1e"], r"^--style_weight must be a number, got '1e'$"),
        (["--steps=4.5"], r"^--steps must be a whole number, got '4\.5'$"),
        (
            ["--optimizer", "sgd"],
            r"^unknown optimizer 'sgd'; known are lbfgs, adam, pyramid or a class of torch\.optim",
        ),
        (["--model.optimizer=sgd"], r"^unknown optimizer 'sgd'"),
    ],
)
def test_a_slip_is_named_with_what_was_meant(arguments: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contnt: a", r"f\.yaml: unknown setting 'contnt': did you mean content\? nst fit --help lists them$"),
        ("size: 64x", r"f\.yaml: size must be a whole number, got '64x'$"),
        ("model: {style_weight: 1e}", r"f\.yaml: style_weight must be a number, got '1e'$"),
        ("optimizer: sgd", r"^unknown optimizer 'sgd'"),
        ("preset: 1970", r"^unknown preset 1970"),
        ("data:", r"f\.yaml: data must be settings by name, got None$"),
        ("- 1", r"f\.yaml: is not a configuration: expected settings by name, in YAML$"),
        ("size: !!binary YQ==", r"f\.yaml: is not a configuration: a value is no text, number or list$"),
        ("size: !!set {a}", r"f\.yaml: is not a configuration: a value is no text, number or list$"),
        ("size: 2026-05-40", r"f\.yaml: is not a configuration: a value is no text, number or list$"),
        ("size: &a [*a]", r"f\.yaml: is not a configuration: a value is no text, number or list$"),
    ],
)
def test_a_slip_in_a_configuration_is_named_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        read(["--config", str(tmp_path / "f.yaml")])


def test_a_date_in_a_configuration_may_be_a_name(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("output: 2026-05-04")
    assert parsed(["--config", str(tmp_path / "f.yaml")]).output == "2026-05-04"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], r"^no content image was given"),
        (["photo"], r"^no style image was given"),
        (["nobody", "painting"], r"^content image nobody is neither here nor in"),
        (["./nobody.png", "painting"], r"nobody\.png"),
    ],
)
@pytest.mark.usefixtures("workplace")
def test_images_that_are_not_there_are_named(arguments: list[str], message: str) -> None:
    Path("photo").touch()
    Path("painting").touch()
    with pytest.raises((InputError, OSError), match=message):
        read(arguments).check_images()


def test_presets_are_whole_configurations() -> None:
    for name in presets.names():
        assert parsed(["--preset", name]).model.backbone


@pytest.fixture
def planted(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module that leaves a file where it is imported, and what configurations name it by."""
    monkeypatch.syspath_prepend(str(workplace))
    monkeypatch.delitem(sys.modules, "planted", raising=False)
    Path("planted.py").write_text("from pathlib import Path\nPath('imported').touch()\nclass Thing: pass\n")
    Path("hidden").write_text("class_path: planted.Thing\n")
    return workplace


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ("trainer: {callbacks: planted.Thing}", r"^trainer\.callbacks is planted\.Thing, which --safe refuses: only"),
        ("trainer: {callbacks: [{class_path: planted.Thing}]}", r"^trainer\.callbacks is planted\.Thing"),
        ("trainer: {callbacks: '[{class_path: planted.Thing}]'}", r"^trainer\.callbacks is planted\.Thing"),
        ("trainer: {profiler: planted.Thing}", r"^trainer\.profiler is planted\.Thing"),
        ("trainer: {callbacks: hidden}", r"^trainer\.callbacks is hidden"),
        ("trainer: {callbacks: ModelCheckpoint}", r"^trainer\.callbacks is ModelCheckpoint"),
        ("optimizer: planted.Thing", r"^model\.optimizer is planted\.Thing"),
        ("model: {optimizer: {class_path: planted.Thing}}", r"^model\.optimizer is planted\.Thing"),
        ("model: {optimizer: {class_path: Adam, init_args: {lr: planted.Thing}}}", r"^model\.optimizer is planted"),
        ("optimizer: torch.optim.Adam.step", r"^model\.optimizer is torch\.optim\.Adam\.step"),
        ("optimizer: nst_lightning.runs.proposed", r"^model\.optimizer is nst_lightning\.runs\.proposed"),
        ("stages: [planted.Thing]", r"^data\.stages is planted\.Thing"),
    ],
)
@pytest.mark.usefixtures("planted")
def test_what_safe_refuses_is_named_before_it_is_imported(settings: str, named: str) -> None:
    Path("f.yaml").write_text(f"content: photo.png\nstyle: painting.png\nsafe: false\n{settings}")
    with pytest.raises(InputError, match=named):
        read(["--config", "f.yaml", "--safe"])
    assert not Path("imported").exists()


def test_without_safe_a_configuration_imports_what_it_names(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("f.yaml").write_text("content: photo.png\nstyle: painting.png\ntrainer: {callbacks: hidden}")
    assert main(["fit", "--config", "f.yaml", "--safe"]) == 2
    assert capsys.readouterr().err.startswith("nst: error: trainer.callbacks is hidden, which --safe refuses")
    assert not Path("imported").exists()
    assert main(["fit", "--config", "f.yaml"]) == 2
    assert Path("imported").exists()


@pytest.mark.parametrize("arguments", [["--model.optimizer.help=planted.Thing"], ["--model", "hidden"]])
@pytest.mark.usefixtures("planted")
def test_safe_refuses_options_too(arguments: list[str]) -> None:
    with pytest.raises(InputError, match=r" is (planted\.Thing|hidden), which --safe refuses"):
        read([*arguments, "--safe=true"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--optimizer", "adam", "--model.optimizer.lr", "0.01"],
        ["--optimizer", "RMSprop"],
        ["--optimizer={class_path: torch.optim.SGD, init_args: {lr: 1e-3}}"],
        [
            "--strategy",
            "pair_parallel",
            "--devices",
            "2",
            "--precision",
            "bf16-mixed",
            "--trainer.max_time=00:01:00:00",
        ],
        ["--preset", "strotss", "--stages", "[{size: 32, steps: 3}]", "-o", "a.png", "--style_loss", "gram"],
        ["--trainer.callbacks", "nst_lightning.callbacks.ProgressBar", "--trainer.logger", "false"],
    ],
)
def test_safe_admits_the_packages_own_and_torchs_optimizers(arguments: list[str]) -> None:
    assert parsed([*arguments, "--safe"]).safe is True


def test_safe_may_stand_in_a_configuration_and_the_command_line_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_text("safe: true\ntrainer: {callbacks: lightning.pytorch.callbacks.Timer}")
    with pytest.raises(InputError, match=r"Timer, which --safe refuses"):
        read(["--config", str(tmp_path / "f.yaml")])
    assert read(["--config", str(tmp_path / "f.yaml"), "--safe", "false"]).options == (("safe", ("false",)),)


def test_a_printed_configuration_has_what_defaults_decide(capsys: pytest.CaptureFixture[str]) -> None:
    printed = {}
    cases: dict[str, list[str]] = {"plain": [], "strotss": ["--preset", "strotss"], "other": ["--size=99", "--seed=3"]}
    for name, given in cases.items():
        assert main(["fit", "--print_config", *given]) == 0
        printed[name] = yaml.safe_load(capsys.readouterr().out)
    of_data = {name: (each["data"]["size"], each["data"]["steps"]) for name, each in printed.items()}
    assert of_data == {"plain": (512, 240), "strotss": (512, 1000), "other": (99, 240)}
    weights = {name: each["model"]["weights"] for name, each in printed.items()}
    assert weights == {"plain": "oxford", "strotss": "torchvision", "other": "oxford"}
    assert printed["plain"]["model"]["optimizer"]["class_path"] == "nst_lightning.optim.LBFGS"
    assert printed["strotss"]["model"]["optimizer"]["class_path"] == "nst_lightning.optim.Pyramid"
    assert printed["other"]["model"]["seed"] == 3
    assert "null" not in str(printed)
    assert main(["fit", "--print_config", "--preset", "strotss", "--size", "99"]) == 0
    small = yaml.safe_load(capsys.readouterr().out)["data"]  # too small for the first of its four stages
    listed = [Stage(**stage) for stage in small["stages"]]
    assert scheduled(listed, 99, None) == scheduled(listed, small["size"], small["steps"])


@pytest.mark.usefixtures("workplace")
def test_a_printed_configuration_makes_the_same_picture(capfd: pytest.CaptureFixture[str]) -> None:
    given = ["photo.png", "painting.png", "--size", "40", "--steps", "2", "--scores", "off", "--tv_weight", "3"]
    assert main(["fit", "--print_config", *given]) == 0
    Path("f.yaml").write_text(capfd.readouterr().out)
    assert main(["fit", *given, "-o", "a.png"]) == 0
    assert main(["fit", "-c", "f.yaml", "-o", "b.png"]) == 0
    a, b = Image.open("a.png"), Image.open("b.png")
    assert a.tobytes() == b.tobytes()
    assert a.info["nst_lightning"] == b.info["nst_lightning"]
