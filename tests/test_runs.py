"""Names of outputs that are taken get a number."""

from __future__ import annotations

from pathlib import Path

import pytest

from nst_lightning import runs


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
    run, file = runs.claim(output, ["a_b"], overwrite=False)
    assert (str(run.folder), None if file is None else str(file)) == expected


def test_what_may_be_overwritten_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "out.png").touch()
    wished = tmp_path / "out.png"
    assert runs.claim(str(wished), ["a"], overwrite=True) == (runs.Run(tmp_path / "out"), wished)


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
    assert runs.claim(None, ["a", "b", "c"], overwrite=False)[0].folder == Path("data/output-images/a_and_2_more")
