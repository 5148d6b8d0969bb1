"""What a run can do without fails with one line."""

from __future__ import annotations

from typing import Any, cast

import pytest
from lightning.pytorch.callbacks import Callback

from nst_lightning.callbacks.secondary import secondary
from nst_lightning.errors import InputError


@secondary("the show")
class Show(Callback):
    """Fails from its second step on."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_train_batch_end(self, *arguments: Any) -> None:
        self.steps.append(arguments[-1])
        if len(self.steps) == 2:
            raise OSError("disk\nfull")
        if arguments[-1] < 0:
            raise InputError("no such step")


def step(show: Show, number: int) -> None:
    show.on_train_batch_end(*cast(Any, (None, None, None, None, number)))


def test_a_failure_is_one_line_and_the_last_that_is_heard_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    show = Show()
    for number in range(4):
        step(show, number)
    assert show.steps == [0, 1]
    assert capsys.readouterr().err == "nst: the show: disk full; the run goes on without\n"


def test_what_was_asked_for_and_cannot_be_used_ends_the_run() -> None:
    with pytest.raises(InputError, match=r"^no such step$"):
        step(Show(), -1)


def test_where_no_one_reads_the_line_the_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    show = Show()
    step(show, 0)
    step(show, 1)
    assert show.failed  # type: ignore[attr-defined]
