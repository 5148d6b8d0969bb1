"""`nst completion`: the scripts do in their shells what they are for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from nst_lightning.__main__ import main
from nst_lightning.cli.registry import COMMANDS

BASH = shutil.which("bash")
ZSH = shutil.which("zsh")


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "nst"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.skipif(BASH is None, reason="no bash")
@pytest.mark.parametrize(
    ("typed", "found"),
    [
        (["nst", ""], {*COMMANDS}),
        (["nst", "rep"], {"report", "reproduce"}),
        (["nst", "fit", "--style_we"], {"--style_weight"}),
        (["nst", "reproduce", "--ini"], {"--init"}),
        (["nst", "fit", "--preset", "crow"], {"crowsonkb", "crowsonkb_gram"}),
        (["nst", "sweep", "--dr"], {"--dry_run"}),
        (["nst", "fit", "--overwrite", "t"], {"true"}),
        (["nst", "fit", "pho"], {"photo.png"}),
        (["nst", "fit", "--content", "pho"], {"photo.png"}),
    ],
)
def test_bash_completes(typed: list[str], found: set[str], script: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    words = " ".join(f"'{word}'" for word in typed)
    asked = f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _shtab_nst; echo ${{COMPREPLY[@]}}"
    done = subprocess.run([str(BASH), "-c", asked], capture_output=True, text=True, cwd=tmp_path)
    assert found <= {*done.stdout.split()}, done.stderr
    assert all(word.startswith(typed[-1]) for word in done.stdout.split())


@pytest.mark.skipif(ZSH is None, reason="no zsh")
def test_zsh_reads_its_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    (tmp_path / "_nst").write_text(capsys.readouterr().out)
    done = subprocess.run([str(ZSH), "-n", str(tmp_path / "_nst")], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "fish"]) == 2
    assert "choose from" in capsys.readouterr().err
