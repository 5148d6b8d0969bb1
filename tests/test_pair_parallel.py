"""Jobs of several processes as they are launched: the pictures are those of one process, whatever happens to another.

The jobs run on CPUs. Every launch imports torch and Lightning anew in all processes but the first, so the tests share
them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nst_lightning.__main__ import main
from nst_lightning.parallel import telling
from nst_lightning.progress import Progress
from tests.conftest import threads
from tests.processes import Program, run

FAST = ["--stages", "1", "--content_layers", "relu2_1", "--style_layers", "relu1_1,relu2_1", "--style_loss", "gram"]
NOISE = ["--init", "gaussian", "--trainer.accelerator", "cpu"]
TWO = ["--trainer.devices", "2", "--trainer.strategy", "pair_parallel"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
HEADER = "content,style,name,size,steps,style_weight\n"

SIX = [f"c{n}.png,s{n % 2}.png,p{n},,," for n in range(6)]  # three pairs for each of two processes
SEVEN = [f"c{n}.png,s{n % 2}.png,q{n},{24 + 2 * n},{9 - n % 5}," for n in range(7)]
FOUR = [f"c0.png,s{n % 2}.png,k{n},,60," for n in range(4)]  # equal, so that they are dealt out in turn


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """What a sum over pixels gives may depend on the number of threads."""
    with threads(1):
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures of noise, c0.png to c6.png of several shapes and s0.png and s1.png."""
    folder = tmp_path_factory.mktemp("place")
    shapes = [(32, 40), (40, 32), (32, 40), (36, 36), (30, 40), (28, 40), (40, 24)]
    for number, shape in enumerate(shapes):
        noise(folder / f"c{number}.png", *shape, seed=number)
    for number in range(2):
        noise(folder / f"s{number}.png", 40, 36, seed=90 + number)
    return folder


def noise(path: Path, height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def options(place: Path, rows: Sequence[str], output: str) -> list[str]:
    """The options of a run of pairs; its folder is `output`."""
    pairs = place / f"{output}.csv"
    pairs.write_text(HEADER + "\n".join(rows))
    size = ["--size", "32", "--steps", "4"]
    return ["fit", "--data.pairs", str(pairs), *size, *FAST, *NOISE, "--output", str(place / output)]


def here(command: Sequence[str]) -> int:
    """Runs a command in this process, where Lightning may leave LOCAL_RANK: later launches take that for theirs."""
    before = dict(os.environ)
    try:
        return main(command)
    finally:
        os.environ.clear()
        os.environ.update(before)


def pictures(folder: Path) -> dict[str, bytes]:
    """The files of a run's pictures by pair, settings in the metadata included."""
    return {path.stem: path.read_bytes() for path in folder.glob("*.png")}


def alone(place: Path, rows: Sequence[str], output: str) -> dict[str, bytes]:
    """The pictures of one run for each pair."""
    found: dict[str, bytes] = {}
    for number, row in enumerate(rows):
        assert here(options(place, [row], f"{output}{number}")) == 0
        found |= pictures(place / f"{output}{number}")
    return found


def launched(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, environment=ENVIRONMENT)


def told(job: subprocess.CompletedProcess[str]) -> list[str]:
    """The program's own errors on stderr, which processes share: two lines may come before both their ends."""
    return re.findall(r"nst: error: (?:(?!nst: error: )[^\r\n])*", job.stderr)


# ---- the same pictures, however the pairs are dealt out ----


@pytest.fixture(scope="module")
def two(place: Path) -> subprocess.CompletedProcess[str]:
    """A job of two processes on six pairs and a seventh, bad, that cannot be finished; its folder is `two`."""
    return launched(*options(place, [*SIX, "c6.png,s0.png,bad,,,1e39"], "two"), *TWO)


def test_two_processes_of_three_pairs_one_of_six_and_six_runs_give_the_same_files(
    place: Path, two: subprocess.CompletedProcess[str]
) -> None:
    assert here(options(place, SIX, "one")) == 0
    expected = alone(place, SIX, "six")
    assert pictures(place / "one") == expected
    assert pictures(place / "two") == expected
    assert sorted(expected) == [f"p{n}" for n in range(6)]
    assert len(set(expected.values())) == 6
    assert sorted(two.stdout.split()) == [str(place / f"two/p{n}.png") for n in range(6)]
    assert len({bool(line) for line in two.stdout.splitlines()}) == 1
    scores = [{path.name: path.read_text() for path in (place / run / "scores").iterdir()} for run in ("one", "two")]
    assert scores[0] == scores[1]
    assert sorted(scores[0]) == [f"p{n}.json" for n in range(6)]


@pytest.fixture(scope="module")
def seven(place: Path) -> dict[str, bytes]:
    """The pictures of seven pairs of unequal sizes and steps, one run each."""
    return alone(place, SEVEN, "seven")


def test_seven_unequal_pairs_under_torchrun_give_the_same_files(place: Path, seven: dict[str, bytes]) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "nst_lightning"]
    command, environment = [*torchrun, *options(place, SEVEN, "torchrun"), *TWO], {**os.environ, **ENVIRONMENT}
    job = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=environment)
    assert job.returncode == 0, job.stderr
    assert pictures(place / "torchrun") == seven
    assert len({(len(each), each) for each in seven.values()}) == 7
    assert not (place / "torchrun-2").exists()  # both took the folder that the first one chose


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def slurm(place: Path, output: str, *more: str) -> list[subprocess.CompletedProcess[str]]:
    """What two tasks of one step end with and print, with the variables that srun would set and a port that is free."""
    common = {
        **dict.fromkeys(("SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "SLURM_STEP_NUM_TASKS"), "2"),
        **{"SLURM_JOB_ID": "1234567", "SLURM_JOB_NAME": "paint", "SLURM_NODEID": "0", "SLURM_NNODES": "1"},
        **{"SLURM_NODELIST": "127.0.0.1", "MASTER_PORT": str(port())},
    }
    command = [*options(place, SEVEN, output), *more]
    with ExitStack() as stack:
        tasks = [
            stack.enter_context(
                Program(*command, environment={**ENVIRONMENT, **common, "SLURM_PROCID": rank, "SLURM_LOCALID": rank})
            )
            for rank in ("0", "1")
        ]
        return [task.ended() for task in tasks]


def test_seven_unequal_pairs_under_slurm_give_the_same_files(place: Path, seven: dict[str, bytes]) -> None:
    for task in slurm(place, "slurm", *TWO):
        assert task.returncode == 0, task.stderr
    assert pictures(place / "slurm") == seven
    assert not (place / "slurm-2").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_lightning_was_not_told_of_are_refused(
    rank: str, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        **dict.fromkeys(("RANK", "LOCAL_RANK"), rank),
        **dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2"),
        **{"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "TORCHELASTIC_RUN_ID": "none"},
    }.items():
        monkeypatch.setenv(name, value)
    with telling({"folder": str(place / "untold")}):  # what the ranks would ask of each other
        assert here(options(place, SEVEN, "untold")) == 2
    out, err = capfd.readouterr()
    assert re.fullmatch(r"nst: error: 2 processes were launched, [^\n]* is auto: each would [^\n]*\n", err), err
    assert out == ""
    assert pictures(place / "untold") == {}


def test_several_devices_without_a_strategy_are_refused(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert here([*options(place, SIX, "none"), "--trainer.devices", "2"]) == 2
    err = capfd.readouterr().err
    assert re.fullmatch(r"nst: error: trainer\.strategy must be pair_parallel or tile_parallel [^\n]*\n", err), err
    assert pictures(place / "none") == {}


# ---- a process that fails ----


def children(parent: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [int(pid) for pid, of in (line.split() for line in listed.splitlines()) if int(of) == parent]


@pytest.fixture(scope="module")
def killed(place: Path) -> subprocess.CompletedProcess[str]:
    """A job of four pairs, k0 and k2 for one process, k1 and k3 for another that is killed at its first checkpoint."""
    command = [*options(place, FOUR, "killed"), *TWO, "--checkpoint_minutes", "0.0001"]
    with Program(*command, environment=ENVIRONMENT) as job:
        job.until((place / "killed/checkpoints/k1.ckpt").exists)
        (other,) = children(job.pid)
        os.kill(other, signal.SIGKILL)
        return job.ended()


@pytest.fixture(scope="module")
def four(place: Path) -> dict[str, bytes]:
    """The pictures of the job that is killed, in one process that is not."""
    assert here(options(place, FOUR, "whole")) == 0
    return pictures(place / "whole")


def test_a_killed_process_fails_the_job_after_the_other_has_finished(
    place: Path, killed: subprocess.CompletedProcess[str], four: dict[str, bytes]
) -> None:
    assert killed.returncode == 1
    folder = place / "killed"
    assert told(killed) == [
        f"nst: error: rank 1 was killed by SIGKILL; not finished: k1, k3; to go on: nst fit --resume {folder}"
    ]
    assert "Traceback" not in killed.stderr
    assert killed.stdout.split() == [str(folder / f"{name}.png") for name in ("k0", "k2")]
    assert pictures(folder) == {name: four[name] for name in ("k0", "k2")}


@pytest.mark.parametrize("devices", [1, 3])
def test_a_job_that_lost_a_process_goes_on_with_any_number_to_the_same_files(
    devices: int, place: Path, killed: subprocess.CompletedProcess[str], four: dict[str, bytes]
) -> None:
    folder = place / f"resumed{devices}"
    shutil.copytree(place / "killed", folder)
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.png")}
    command = ["fit", "--resume", str(folder), "--trainer.devices", str(devices)]
    if devices == 1:
        assert here(command) == 0
    else:
        job = launched(*command)
        assert (job.returncode, told(job)) == (0, [])
        assert sorted(job.stdout.split()) == [str(folder / f"{name}.png") for name in ("k1", "k3")]
    assert pictures(folder) == four
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert list(folder.glob("checkpoints/*.ckpt")) == []


def test_a_pair_that_one_process_cannot_finish_is_named_and_all_others_are_painted(
    place: Path, two: subprocess.CompletedProcess[str]
) -> None:
    assert two.returncode == 2
    assert "Traceback" not in two.stderr
    own, whole = told(two)
    assert re.fullmatch(r"nst: error: bad: the loss is not finite when a stage begins .*", own)
    ended = r"nst: error: rank [01] ended with exit code 2; not finished: bad; to go on: nst fit --resume "
    assert re.fullmatch(f"{ended}{re.escape(str(place / 'two'))}", whole)
    assert pictures(place / "two").keys() == {f"p{n}" for n in range(6)}


@contextmanager
def long_job(place: Path, output: str) -> Iterator[tuple[Program, int]]:
    """A job of two processes that have much to do, once both are at work, and the number of the second, that of k1."""
    rows = ["c0.png,s0.png,k0,,6100,", "c0.png,s1.png,k1,,6000,"]
    # So seldom that there is something to save when the job is told to end.
    command = [*options(place, rows, output), *TWO, "--checkpoint_minutes", "0.02"]
    with Program(*command, environment=ENVIRONMENT) as job:
        job.until(lambda: all((place / output / f"checkpoints/{name}.ckpt").exists() for name in ("k0", "k1")))
        (other,) = children(job.pid)
        yield job, other
        with suppress(ProcessLookupError):
            os.kill(other, signal.SIGKILL)


def test_a_stopped_process_saves_what_it_has_when_the_job_is_told_to_end(place: Path) -> None:
    with long_job(place, "stopped") as (job, other):
        os.kill(other, signal.SIGSTOP)
        time.sleep(1)
        stopped = time.time()
        job.send_signal(signal.SIGTERM)
        before = time.monotonic()
        ended = job.ended(30)
        assert time.monotonic() - before < 10
    assert ended.returncode == 143
    assert f"nst: interrupted; to go on: nst fit --resume {place}/stopped\n" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {each.names for each in Progress.of(place / "stopped").saved} == {("k0",), ("k1",)}
    assert max(path.stat().st_mtime for path in (place / "stopped/checkpoints").glob("k1.ckpt")) > stopped


def test_a_process_whose_parent_was_killed_saves_what_it_has_and_ends(place: Path) -> None:
    with long_job(place, "orphan") as (job, other):
        job.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 30
        while Path(f"/proc/{other}").exists() and "Z" not in Path(f"/proc/{other}/stat").read_text().split()[2]:
            assert time.monotonic() < deadline, "the process goes on, though nobody waits for it"
            time.sleep(0.05)
    newest = Progress.of(place / "orphan").saved[0]
    assert newest.names == ("k1",)
    assert newest.taken < 6000


# ---- batches ----


def chosen_backend(images: Tensor, kernel: Tensor) -> str:
    arguments = (images, kernel, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1)
    return str(torch._C._select_conv_backend(*arguments))


@pytest.mark.skipif(not torch._C._has_mkldnn, reason="this torch has one convolution for all sizes")
@pytest.mark.parametrize(("side", "same"), [(17, False), (18, True)])
def test_a_small_image_alone_is_convolved_by_other_code_than_a_batch(side: int, same: bool) -> None:
    """Up to 20480 numbers: why the backbone gives a small image a companion."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6, 64, side, side, generator=generator)
    kernel = torch.randn(64, 64, 3, 3, generator=generator)
    single = torch.cat([nn.functional.conv2d(image[None], kernel, padding=1) for image in images])
    pairs = torch.cat([nn.functional.conv2d(two, kernel, padding=1) for two in torch.split(images, 2)])
    assert torch.equal(pairs, nn.functional.conv2d(images, kernel, padding=1))
    assert (chosen_backend(images[:1], kernel) == chosen_backend(images, kernel)) is same
    assert torch.equal(single, pairs) is same
    torch.testing.assert_close(single, pairs, rtol=0, atol=1e-4)


def in_batches(place: Path, of: int, *more: str) -> list[np.ndarray]:
    """The pictures of six equal pairs, optimised so many at a time."""
    for number in range(6):
        noise(place / f"e{number}.png", 96, 128, seed=number)
    rows = [f"e{n}.png,s{n % 2}.png,e{n},,," for n in range(6)]
    output = f"batches_of_{of}"
    command = [*options(place, rows, output), "--overwrite", "true", "--data.batch_size", str(of), "--scores", "off"]
    command += more
    assert here(command) == 0
    return [np.asarray(Image.open(place / output / f"e{n}.png")).astype(int) for n in range(6)]


@pytest.mark.parametrize("size", ["40", "96"])
def test_batches_of_1_2_and_6_give_the_same_picture(size: str, place: Path) -> None:
    one, two, six = (in_batches(place, of, "--size", size, "--steps", "5") for of in (1, 2, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(one, six, strict=True))


def test_batches_of_1_and_6_give_the_same_picture_with_the_default_layers(place: Path) -> None:
    layers = ["--content_layers", "relu4_2", "--style_layers", "relu1_1,relu2_1,relu3_1,relu4_1,relu5_1"]
    layers += ["--style_loss", "gram,matched,nearest"]
    one, six = (in_batches(place, of, "--size", "64", "--steps", "2", *layers) for of in (1, 6))
    assert all(np.array_equal(a, b) for a, b in zip(one, six, strict=True))


# ---- the tiles of one image ----


def tiled(place: Path, output: str, *more: str) -> list[str]:
    noise(place / "large.png", 64, 80, seed=7)
    files = ["--content", str(place / "large.png"), "--style", str(place / "s0.png")]
    size = ["--size", "80", "--steps", "5", "--output", str(place / output)]
    return ["fit", *files, *size, *FAST, *NOISE, *more]


TILES = ["--trainer.devices", "2", "--trainer.strategy", "tile_parallel"]


def test_two_processes_on_the_tiles_of_one_image_give_the_picture_of_one(place: Path) -> None:
    job = launched(*tiled(place, "shared", "--model.tile", "32", *TILES))
    assert (job.returncode, told(job)) == (0, [])
    assert job.stdout == f"{place}/shared/large_s0.png\n"
    assert [path.name for path in place.glob("shared/*.png")] == ["large_s0.png"]
    assert here(tiled(place, "single", "--model.tile", "32")) == 0
    shared, single = (np.asarray(Image.open(place / of / "large_s0.png")).astype(int) for of in ("shared", "single"))
    assert np.abs(shared - single).max() <= 1


def test_tiles_of_an_image_that_is_not_tiled_are_refused(place: Path) -> None:
    job = launched(*tiled(place, "off", *TILES))
    assert job.returncode == 2
    assert set(told(job)) == {
        "nst: error: trainer.strategy tile_parallel deals out tiles: set model.tile to auto or a number of pixels"
    }
    assert "Traceback" not in job.stderr
    assert pictures(place / "off") == {}
