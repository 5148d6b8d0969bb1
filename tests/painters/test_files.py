"""Painters' files: written, read, and refused."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from nst_lightning.__main__ import main
from nst_lightning.errors import InputError
from nst_lightning.painters import BUNDLED, PainterNetwork, Trained, load, located
from nst_lightning.painters.files import KEY


@pytest.fixture
def trained() -> Trained:
    torch.manual_seed(0)
    return Trained(PainterNetwork(2, 4), ("dawn", "dusk"), {"crop": 64})


def test_a_file_is_what_was_written_in_half_precision(trained: Trained, tmp_path: Path) -> None:
    trained.write(tmp_path / "p.safetensors")
    found = load(tmp_path / "p.safetensors")
    assert (found.styles, found.settings) == (["dawn", "dusk"], {"crop": 64})
    for name, each in trained.network.state_dict().items():
        torch.testing.assert_close(found.network.state_dict()[name], each.half().float(), rtol=0, atol=0)
    with pytest.raises(FileExistsError):
        trained.write(tmp_path / "p.safetensors")


def test_strength_and_styles_mix(trained: Trained) -> None:
    photograph = torch.rand(1, 3, 32, 32)
    assert torch.equal(trained.paint(photograph, strength=0.0), photograph)
    half = trained.paint(photograph, {"dusk": 2.0}, 0.5)
    torch.testing.assert_close(half, (photograph + trained.paint(photograph, {"dusk": 1.0})) / 2)
    for weights, message in (
        ({"noon": 1.0}, "no style 'noon'; it has dawn, dusk$"),
        ({"dawn": 0.0}, "got {'dawn': 0.0}$"),
    ):
        with pytest.raises(InputError, match=message):
            trained.paint(photograph, weights)
    with pytest.raises(InputError, match=r"^strength must be a number from 0 to 1, got 1\.5$"):
        trained.paint(photograph, strength=1.5)


def test_what_is_no_painter_is_refused_in_one_line(trained: Trained, tmp_path: Path, content_png: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    trained.write(whole)
    (tmp_path / "cut.safetensors").write_bytes(whole.read_bytes()[:-100])
    (tmp_path / "empty.ckpt").touch()
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "other.ckpt").read_bytes()[:-200])
    for file in ("cut.safetensors", "empty.ckpt", "other.ckpt", "cut.ckpt", "missing.safetensors", str(content_png)):
        with pytest.raises(
            InputError, match=r"^[^\n]*: is no painter \([^\n]*\); expected bundled, a file or checkpoint of nst t"
        ):
            load(tmp_path / file)
    state = PainterNetwork(2, 8).state_dict()
    save_file(state, tmp_path / "wider.safetensors", {KEY: trained.told})
    with pytest.raises(
        InputError, match="is a painter of another architecture than this version's of 4 channels and 2 s"
    ):
        load(tmp_path / "wider.safetensors")


@pytest.mark.parametrize("missing", ["", "onnxruntime"])
def test_an_onnx_file_is_checked_against_torch(
    trained: Trained,
    tmp_path: Path,
    content_png: Path,
    missing: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    trained.write(tmp_path / "p.safetensors")
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    code = main(["paint", "--painter=p.safetensors", "--export=p.onnx", "--accelerator=cpu"])
    told = capsys.readouterr()
    assert (code, told.out) == ((2, "") if missing else (0, "p.onnx\n"))
    assert Path("p.onnx").exists() == (not missing)
    wanted = f"nst: error: {missing} is not installed, which this needs: pip install 'nst-lightning[onnx]'\n"
    assert told.err == (wanted if missing else "")
    if not missing:  # what onnxruntime paints with, whole or cut off, is no painter of this program's
        Path("cut.onnx").write_bytes(Path("p.onnx").read_bytes()[:-1000])
        assert [main(["paint", str(content_png), "--painter", each]) for each in ("p.onnx", "cut.onnx")] == [2, 2]
        lines = capsys.readouterr().err.splitlines()
        assert [line.partition(" (")[0] for line in lines] == [
            "nst: error: p.onnx: is no painter",
            "nst: error: cut.onnx: is no painter",
        ]


def test_the_bundled_painter_is_small() -> None:
    assert located(BUNDLED).stat().st_size < 2_000_000
    assert load(BUNDLED).styles
