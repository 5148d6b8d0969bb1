"""The loop over a run's steps, for which a pair that cannot be finished is no obstacle to those behind it."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

from nst_lightning.batches import Timeline
from nst_lightning.data import data_of
from nst_lightning.errors import explained
from nst_lightning.modules.optimization import ImageOptimization
from nst_lightning.runs import Run, replacing
from nst_lightning.terminal import say


class PairsLoop(_TrainingEpochLoop):
    """Leaves out a pair that its steps cannot be taken of; one of several in a batch is found by taking each alone.

    Why is noted in the data's `failed` and in the run folder, the trainer's `default_root_dir`. Not for several
    processes on one image, which have to fail together.
    """

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """Takes a step, or goes on to the next batch."""
        try:
            super().advance(data_fetcher)
        except Exception as error:
            module = self.trainer.lightning_module
            if not isinstance(module, ImageOptimization) or module.stuck is None:
                raise
            names, reason = module.stuck.batch.names, explained(error)
            module.stuck = None
        else:
            return
        timeline = self.trainer.train_dataloader
        assert isinstance(timeline, Timeline)
        longer = 1 + timeline.give_up(self.trainer.global_step)  # 1: this step was counted, and not taken
        run = Run(Path(self.trainer.default_root_dir))
        if len(names) == 1:
            data_of(self.trainer).failed[names[0]] = reason
            with replacing(run.why_failed(names[0])) as file:
                file.write_text(f"{reason[0]}\n", encoding="utf-8")
            return
        run.forget(names[0])
        say(f"nst: {', '.join(names)}: {reason[0]}; each begins anew by itself")
        # What Lightning counts to, and whether it has: there are more steps now.
        self.trainer.fit_loop.max_batches += longer
        assert data_fetcher.length is not None
        data_fetcher.length += longer
        data_fetcher.done = self.batch_progress.is_last_batch = False
