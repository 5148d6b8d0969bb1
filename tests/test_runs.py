"""Names of outputs that are taken get a number."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nst_lightning import runs
from nst_lightning.errors import InputError


@pytest.mark.parametrize(
    ("there", "output", "expected"),
    [
        ([], None, ("data/output-images/a_b", None)),
        (["data/output-images/a_b/x"], None, ("data/output-images/a_b-2", None)),
        ([], "out", ("out", None)),
        (["out/x", "out-2/x"], "out", ("out-3", None)),
        ([], "out.jpg", ("out", "out.jpg")),
        (["out.jpg"], "out.jpg", ("out-2", "out-2.jpg")),
        (["out/x"], "out.jpg", ("out-2", "out-2.jpg")),
        (["out"], "out", ("out-2", None)),
    ],
)
def test_a_name_that_is_taken_gets_a_number(
    there: list[str],
    output: str | None,
    expected: tuple[str, str | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in map(Path, there):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run, file = runs.proposed(output, ["a_b"], overwrite=False)
    assert (str(run.folder), None if file is None else str(file)) == expected


def test_what_may_be_overwritten_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "out.png").touch()
    wished = tmp_path / "out.png"
    assert runs.proposed(str(wished), ["a"], overwrite=True) == (runs.Run(tmp_path / "out"), wished)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], "scores"),
        (["scores.csv"], "scores-2"),
        (["scores.json", "scores-2.csv", "scores-4.csv"], "scores-3"),
        (["scores.txt", "scores"], "scores"),
        (["scores.csv/x"], "scores-2"),
    ],
)
def test_a_path_is_free_where_none_of_its_suffixes_is_taken(there: list[str], expected: str, tmp_path: Path) -> None:
    for path in there:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    assert runs.free(tmp_path / "scores", (".csv", ".json")) == tmp_path / expected


def test_several_pairs_share_a_folder_named_after_the_first() -> None:
    assert runs.proposed(None, ["a", "b", "c"], overwrite=False)[0].folder == Path("data/output-images/a_and_2_more")


def test_a_claimed_folder_is_held_and_goes_again_if_nothing_was_written(tmp_path: Path) -> None:
    output = str(tmp_path / "new" / "out.png")
    with runs.claimed(output, ["a"], overwrite=False) as (run, file):
        assert (run.folder, file) == (tmp_path / "new" / "out", Path(output))
        with runs.claimed(output, ["a"], overwrite=False) as (other, other_file):
            assert (other.folder, other_file) == (tmp_path / "new" / "out-2", tmp_path / "new" / "out-2.png")
            other.config.touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.yaml", "new", "out-2"]


def test_a_folder_that_another_run_takes_in_the_same_moment_is_not_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def held(run: runs.Run) -> Iterator[None]:
        if run.folder.name == "out":
            run.config.touch()  # by another run, which was begun and ended after the folder was seen to be free
        with first(run):
            yield

    first = runs.held
    monkeypatch.setattr(runs, "held", held)
    with runs.claimed(str(tmp_path / "out"), ["a"], overwrite=False) as (run, _):
        assert run.folder == tmp_path / "out-2"
    assert (tmp_path / "out").is_dir()


def test_what_a_killed_run_leaves_before_it_wrote_anything_takes_no_name(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").touch()
    with runs.claimed(str(tmp_path / "out"), ["a"], overwrite=False) as (run, _):
        assert run.folder == tmp_path / "out"


def test_a_run_at_work_is_not_overwritten(tmp_path: Path) -> None:
    with runs.claimed(str(tmp_path / "out"), ["a"], overwrite=False):
        with pytest.raises(InputError, match=r"out: another process is at work on this run$"):
            with runs.claimed(str(tmp_path / "out"), ["a"], overwrite=True):
                pass


@pytest.mark.parametrize("output", ["", ".", "..", "/", "a/..", "a\0b"])
def test_an_output_without_a_name_is_refused(output: str) -> None:
    with pytest.raises(InputError, match=r"^output must name a folder or a picture's file, got "):
        runs.proposed(output, ["a"], overwrite=False)


def test_what_may_never_end_is_not_read(tmp_path: Path) -> None:
    assert runs.regular(tmp_path / "none") == tmp_path / "none"
    assert runs.regular(tmp_path) == tmp_path
    with pytest.raises(OSError, match="a device or a pipe, not a file"):
        runs.regular(Path("/dev/zero"))


def test_a_run_is_at_work_in_one_process(tmp_path: Path) -> None:
    with runs.held(runs.Run(tmp_path)):
        with pytest.raises(InputError, match=r": another process is at work on this run$"):
            with runs.held(runs.Run(tmp_path)):
                pass
    with runs.held(runs.Run(tmp_path)):
        pass
    assert list(tmp_path.iterdir()) == []
