"""Checkpoints on disk: what is damaged in any byte is not believed, and what is written is whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from nst_lightning.callbacks.checkpoints import CheckpointFiles
from nst_lightning.errors import InputError
from nst_lightning.progress import Progress, loaded, note_of
from nst_lightning.runs import Run
from nst_lightning.schedule import Stage

CPU = torch.device("cpu")


def checkpoint(taken: int = 3) -> dict[str, Any]:
    return {
        "state_dict": {"image": torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(taken))},
        "global_step": taken,
        "batch": note_of(["a"], [Stage(8, 5)], taken),
    }


def saved(path: Path, taken: int = 3) -> Path:
    CheckpointFiles().save_checkpoint(checkpoint(taken), path)
    return path


def mutated(whole: bytes, random: Random) -> bytes:
    """The bytes with one bit turned, a stretch of zeros or of noise, or the end cut off."""
    found, place = bytearray(whole), random.randrange(len(whole))
    kind = random.randrange(4)
    if kind == 0:
        found[place] ^= 1 << random.randrange(8)
    elif kind == 1:
        found[place : place + 64] = bytes(len(found[place : place + 64]))
    elif kind == 2:
        found[place : place + 16] = random.randbytes(len(found[place : place + 16]))
    else:
        del found[place:]
    return bytes(found)


def test_damage_in_any_byte_is_found_or_does_no_harm(tmp_path: Path) -> None:
    file, random, refused = saved(tmp_path / "a.ckpt"), Random(1), 0
    whole = file.read_bytes()
    expected = checkpoint()
    for _ in range(400):
        file.write_bytes(mutated(whole, random))
        try:
            found = loaded(file, CPU)
        except InputError as error:
            assert str(error).startswith(f"{file}: the checkpoint is damaged or not one of this program's")
            refused += 1
        else:  # the bytes between its records, which no one reads
            assert torch.equal(found["state_dict"]["image"], expected["state_dict"]["image"])
            assert found["batch"] == expected["batch"]
    assert refused > 200


def test_every_bit_of_the_image_is_watched(tmp_path: Path) -> None:
    file = saved(tmp_path / "a.ckpt")
    whole = bytearray(file.read_bytes())
    place = whole.index(checkpoint()["state_dict"]["image"].numpy().tobytes()[:64])
    whole[place] ^= 1
    file.write_bytes(whole)
    with pytest.raises(InputError, match=r"a\.ckpt: the checkpoint is damaged"):
        loaded(file, CPU)


@pytest.mark.parametrize("content", [[1, 2], "text", torch.zeros(3)])
def test_what_is_no_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"a\.ckpt: the checkpoint is damaged or not one of this program's"):
        loaded(tmp_path / "a.ckpt", CPU)


def test_the_one_before_a_damaged_checkpoint_is_taken(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.config.touch()
    before, newest = saved(run.checkpoint_before("a"), 2), saved(run.checkpoint("a"), 3)
    os.utime(before, (1, 1))
    assert [each.taken for each in Progress.of(tmp_path).saved] == [3, 2]
    newest.write_bytes(newest.read_bytes()[:-40])
    with pytest.warns(
        UserWarning, match=r"a\.ckpt: the checkpoint is damaged .* will begin anew, or go on from the one before"
    ):
        assert [each.taken for each in Progress.of(tmp_path).saved] == [2]


@pytest.mark.parametrize("note", [{"format": 4}, {"format": 4, "names": 3, "stages": 1, "taken": None}, [2], "x"])
def test_a_note_that_says_nothing_is_as_a_damaged_file(note: object, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.config.touch()
    run.checkpoints.mkdir()
    torch.save({**checkpoint(), "batch": note}, run.checkpoint("a"))
    with pytest.warns(UserWarning, match=r"begin anew, or go on from the one before"):
        assert Progress.of(tmp_path).saved == ()


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to nothing", "link to itself", "device"])
def test_what_is_no_file_is_as_a_damaged_one_and_written_over(kind: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.config.touch()
    saved(run.checkpoint_before("a"), 2)
    path = run.checkpoint("a")
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to({"link to nothing": Path("nothing"), "link to itself": path, "device": Path("/dev/zero")}[kind])
    with pytest.warns(UserWarning, match=r"a\.ckpt.* will begin anew, or go on from the one before"):
        assert [each.taken for each in Progress.of(tmp_path).saved] == [2]
    run.forget("a")
    assert run.saved() == []


def test_a_disk_that_is_full_leaves_the_good_checkpoint_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = saved(tmp_path / "a.ckpt")
    good = file.read_bytes()

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as opened:
            opened.write(bytes(data)[:50])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.ckpt'"):
        saved(file, 4)
    assert file.read_bytes() == good
    assert list(tmp_path.iterdir()) == [file]
