"""Which trainers images can be optimised with."""

from __future__ import annotations

import lightning as L

from nst_lightning.errors import InputError
from nst_lightning.parallel import check_world

_PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")


def check_trainer(trainer: L.Trainer) -> None:
    """Refuses settings under which a step would not be one evaluation of one image.

    Raises:
        InputError: If the trainer accumulates gradients, has another number of epochs than 1, a precision in which
            the image or the losses would be less than float32, or processes that would get in each other's way,
            see `strategies.check_world`.
    """
    for name, value in (
        ("accumulate_grad_batches", trainer.accumulate_grad_batches),
        ("max_epochs", trainer.max_epochs),
    ):
        if value != 1:
            msg = f"trainer.{name} must be 1, got {value}: a run is one epoch (see data.steps)"
            raise InputError(msg)
    if trainer.precision not in _PRECISIONS:
        msg = f"trainer.precision must be one of {', '.join(_PRECISIONS)}, got {trainer.precision}"
        raise InputError(msg)
    check_world(trainer)
