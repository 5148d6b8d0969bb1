"""The page, made of gradio's components: it shows what the queue has and hands on what people choose."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from nst_lightning.errors import InputError
from nst_lightning.files import CONTENT_FOLDER, STYLE_FOLDER
from nst_lightning.recipe import read
from nst_lightning.ui import controls, pictures
from nst_lightning.ui.controls import CONTROLS, Control
from nst_lightning.ui.jobs import Job, Queue

_INTERVAL = 1.5  # s between two looks at the queue
_HIDDEN: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_TO_STATUS = "() => {if (innerWidth < 700) document.querySelector('#status').scrollIntoView({behavior: 'smooth'})}"


def _told(method: Callable[..., Any]) -> Callable[..., Any]:
    """Has what cannot be used shown on the page in its one line."""

    @wraps(method)
    def wrapped(*arguments: Any) -> Any:  # noqa: ANN401 - what gradio hands on
        try:
            return method(*arguments)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return wrapped


class Page:
    """The page of a queue; what people hand in is kept in the folder, the runs' folder in it."""

    def __init__(self, queue: Queue, folder: Path) -> None:
        self.queue, self.folder = queue, folder
        with gr.Blocks(title="nst", analytics_enabled=False, delete_cache=(3600, 86_400)) as self.blocks:
            gr.Markdown("## Paint a photograph in the manner of a painting")
            self.current = gr.BrowserState("", storage_key="nst-run", secret="the name of a run is none")
            self.seen, self.listed = gr.State(()), gr.State([])
            with gr.Tabs() as self.tabs:
                with gr.Tab("Paint", id="paint"), gr.Row():
                    with gr.Column(min_width=320):
                        self._choose()
                    with gr.Column(min_width=320):
                        self._watch()
                with gr.Tab("Gallery", id="gallery"):
                    gr.Markdown("All runs, the newest first. Choose one to see its settings, or to go on with it.")
                    self.gallery = gr.Gallery(
                        show_label=False, columns=4, object_fit="contain", allow_preview=False, interactive=False,
                        buttons=[], elem_id="runs",
                    )  # fmt: skip
            self._connect()

    def _choose(self) -> None:
        with gr.Row():
            self.photograph, self.painting = _handed_in("Photograph"), _handed_in("Painting")
        for where, what, image in (
            (CONTENT_FOLDER, "Photographs to try", self.photograph),
            (STYLE_FOLDER, "Paintings to try", self.painting),
        ):
            if samples := sorted(str(path) for path in where.glob("*.jpg")):
                gr.Examples([[path] for path in samples], image, label=what, examples_per_page=6)
        with gr.Row():
            self.controls = [_shown(each) for each in CONTROLS.values() if each.is_common]
        self.also = gr.CheckboxGroup(label="Also, as the dropped picture has it", visible=False)
        self.paint = gr.Button("Paint", variant="primary", size="lg")
        with gr.Accordion("More to set", open=False), gr.Row():
            self.controls += [_shown(each) for each in CONTROLS.values() if not each.is_common]
        self.dropped = gr.File(
            label="Get a picture's settings back", height=160, file_types=["image"], elem_id="dropped"
        )

    def _watch(self) -> None:
        self.status = gr.Markdown("Choose a photograph and a painting.", elem_id="status")
        self.picture = gr.Image(
            label="The picture", interactive=False, height=420, buttons=["fullscreen", "download"], elem_id="picture"
        )
        self.at = gr.Slider(1, 2, 1, step=1, label="Time-lapse", visible=False, elem_id="at", buttons=[])
        with gr.Row():
            self.stop = gr.Button("Stop", variant="stop", visible=False)
            self.go_on = gr.Button("Go on", variant="primary", visible=False)
            self.again = gr.Button("Paint it again", visible=False)
        self.sides = gr.ImageSlider(
            label="Before and after", interactive=False, visible=False, buttons=["fullscreen"], elem_id="sides"
        )
        with gr.Accordion("Settings", open=False, visible=False) as self.about:
            self.command = gr.Code(label="The same picture from a terminal", language="shell", interactive=False)
            self.config = gr.Code(label="All settings", language="yaml", interactive=False, max_lines=20)
        self.others = gr.Markdown(elem_id="queue")

    def _connect(self) -> None:
        shown = [
            *(self.seen, self.status, self.picture, self.at, self.stop, self.go_on, self.again, self.sides),
            *(self.about, self.command, self.config, self.others, self.gallery, self.listed),
        ]
        look: dict[str, Any] = {
            "fn": self._look, "inputs": [self.current, self.seen, self.listed], "outputs": shown, **_HIDDEN
        }  # fmt: skip
        gr.Timer(_INTERVAL).tick(**look)
        scrub = [self.current, self.at, self.seen], [self.picture, self.seen]
        self.at.input(self._at, *scrub, trigger_mode="always_last", **_HIDDEN)
        chosen = [self.photograph, self.painting, self.also, *self.controls]
        self.paint.click(_told(self._paint), chosen, self.current, **_HIDDEN).success(**look).success(js=_TO_STATUS)
        for button, act in ((self.stop, self._stop), (self.go_on, self.queue.go_on)):
            button.click(_told(act), self.current, None, **_HIDDEN).success(**look)
        self.again.click(_told(self._again), self.current, self.current, **_HIDDEN).success(**look)
        into = [self.photograph, self.painting, self.current, self.dropped, self.also, *self.controls]
        self.dropped.upload(_told(self._restore), self.dropped, into, **_HIDDEN).success(**look)
        self.gallery.select(self._choose_run, self.listed, [self.current, self.tabs], **_HIDDEN).success(**look)

    def _paint(self, photograph: str | None, painting: str | None, also: list[str], *values: object) -> str:
        if photograph is None or painting is None:
            raise InputError(f"choose a {'photograph' if photograph is None else 'painting'} first")
        names = [control.elem_id for control in self.controls]
        given = dict(zip(names, values, strict=True))
        options = controls.arguments(given, also)
        every = max(1, int(str(given["steps"])) // 24)
        content, style = (pictures.kept(Path(path), self.folder / "uploads") for path in (photograph, painting))
        return self.queue.add(content, style, [*options, f"--save_every={every}"]).name

    def _stop(self, name: str) -> None:
        self.queue.stop(name)
        gr.Info("It ends with this step, and what is painted is kept.")

    def _again(self, name: str) -> str:
        return self.queue.again(name).name

    def _restore(self, path: str) -> list[Any]:
        with pictures.checked(Path(path)):  # before it is read whole
            pass
        try:
            recipe = read(path)
        except InputError as error:  # where the server keeps it tells the painter nothing
            raise InputError(str(error).replace(path, Path(path).name)) from error
        found, also, lost = controls.restored(recipe)
        job = self._painted(Path(path))
        values = [_update(CONTROLS[str(control.elem_id)], found[str(control.elem_id)]) for control in self.controls]
        copies = [pictures.of_sum(str(told), self.folder / "uploads") for told in list(recipe.sums.values())[:2]]
        sources = [gr.skip() if copy is None else str(copy) for copy in copies]
        told = ["The controls are set as this picture has them."]
        told += ["Choose its photograph and its painting."] if None in copies else []
        gr.Info(" ".join([*told, *(f"No control has its {name}." for name in lost)]))
        name = gr.skip() if job is None else job.name
        return [*sources, name, None, gr.update(choices=also, value=also, visible=bool(also)), *values]

    def _painted(self, path: Path) -> Job | None:
        """Returns the job whose picture has the same bytes."""
        data = path.read_bytes()
        finished = (job for job in self.queue.jobs() if job.state == "finished")
        own = ((job, self.queue.run(job).picture(job.pair)) for job in finished)
        alike = (job for job, file in own if file.is_file() and file.stat().st_size == len(data))
        return next((job for job in alike if self.queue.run(job).picture(job.pair).read_bytes() == data), None)

    def _choose_run(self, listed: list[list[str]], event: gr.SelectData) -> tuple[str, Any]:
        return listed[event.index][0], gr.update(selected="paint")

    def _at(self, name: str, at: int, seen: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        """Returns the picture at a place of the time-lapse, and that what comes is followed only from the last."""
        found = self.queue.pictures(self.queue.job(name))
        return str(found[min(at, len(found)) - 1]) if found else gr.skip(), (*seen[:-1], at >= len(found))

    def _look(self, name: str, seen: tuple[Any, ...], listed: list[list[str]]) -> list[Any]:
        """Returns what has changed since it was seen."""
        gallery, names = self._gallery(listed)
        line = _line(self.queue, name)
        try:
            job = self.queue.job(name)
        except InputError:
            return [(), *[gr.skip()] * 10, line, gallery, names]
        found = self.queue.pictures(job)
        follows = seen[:1] != (name,) or seen[-1]
        now = (name, job.state, len(found), _stamp(found), follows)
        if now == seen:
            status = _status(self.queue, job) if job.state in ("waiting", "painting") else gr.skip()
            return [seen, status, *[gr.skip()] * 9, line, gallery, names]
        count = len(found)
        place: dict[str, Any] = {"value": max(1, count)} if follows else {}
        config = self.queue.run(job).config
        is_done = job.state == "finished" and count > 0
        return [
            now,
            _status(self.queue, job),
            (str(found[-1]) if found else None) if follows else gr.skip(),
            gr.update(maximum=max(2, count), visible=count > 1, **place),
            gr.update(visible=job.state in ("waiting", "painting")),
            gr.update(visible=job.state in ("stopped", "failed")),
            gr.update(visible=is_done),
            gr.update(visible=is_done, value=self._sides(job, found) if is_done else None),
            gr.update(visible=True),
            job.command,
            config.read_text(encoding="utf-8") if config.is_file() else "",
            line,
            gallery,
            names,
        ]

    def _sides(self, job: Job, found: list[Path]) -> tuple[Any, str]:
        try:
            return pictures.resized(Path(job.photograph), found[-1]), str(found[-1])
        except InputError:  # someone has removed the photograph
            return str(found[-1]), str(found[-1])

    def _gallery(self, listed: list[list[str]]) -> tuple[Any, Any]:
        """Returns the gallery and its names where they are not those that are listed."""
        jobs = self.queue.jobs()
        names = [[job.name, job.state] for job in jobs]
        if names == listed:
            return gr.skip(), gr.skip()
        said = {job.name: job.name if job.state == "finished" else f"{job.state}: {job.name}" for job in jobs}
        small = [(self._thumbnail(job), said[job.name]) for job in jobs]
        return small, names

    def _thumbnail(self, job: Job) -> Any:  # noqa: ANN401 - what gradio shows
        last = [Path(job.photograph), *self.queue.pictures(job)][-1]
        try:
            return str(pictures.thumbnail(last, self.folder / "thumbnails" / f"{job.name}.jpg"))
        except (InputError, OSError):  # someone has removed it
            return Image.new("RGB", (32, 32), "grey")


def _stamp(found: list[Path]) -> int:
    """Returns when the last of them was written, 0 where it is gone by now."""
    try:
        return found[-1].stat().st_mtime_ns
    except (IndexError, OSError):
        return 0


def _handed_in(label: str) -> gr.Image:
    """Returns a place for a picture, which is handed on as the file that it is."""
    settings: dict[str, Any] = {"type": "filepath", "image_mode": None, "sources": ["upload", "clipboard"]}
    return gr.Image(label=label, height=230, min_width=140, buttons=[], elem_id=label.lower(), **settings)


def _shown(control: Control) -> Any:  # noqa: ANN401 - one of gradio's components
    """Returns the component of a control."""
    words: dict[str, Any] = {"label": control.label, "info": control.info, "elem_id": control.name, "min_width": 240}
    value: Any = controls.defaults()[control.name]
    if control.choices:
        choices = [(word, choice) for choice, word in control.choices.items()]
        return gr.Dropdown(choices, value=value, allow_custom_value=control.is_open, **words)
    if control.high > 1e6:
        return gr.Number(value, minimum=control.low, maximum=control.high, precision=0, **words)
    return gr.Slider(control.low, control.high, value, step=control.step, **words)


def _update(control: Control, value: str | float) -> Any:  # noqa: ANN401 - gradio's
    """Returns a control's new value, its range widened where a picture's weight is beyond it."""
    if control.choices:
        return gr.update(value=value)
    return gr.update(value=value, maximum=max(control.high, float(value)))


def _status(queue: Queue, job: Job) -> str:
    """Returns what has become of a job, in a sentence."""
    if job.state == "waiting":
        before = len([each for each in queue.waiting() if each.asked < job.asked or each.state == "painting"])
        return f"**Waiting**: {before} {'run' if before == 1 else 'runs'} before it."
    if job.state == "failed":
        return f"**It could not be painted**: {job.error}"
    progress = queue.progress(job)
    step = f"step {progress.done} of {progress.steps}" if progress.steps is not None else "preparing"
    if job.state == "painting":
        if progress.done == progress.steps:
            return "**Painting**: the last touches."
        return f"**Painting**: {step}" + (f", {_duration(progress.left)} left." if progress.left is not None else ".")
    if job.state == "stopped":
        return f"**Stopped** at {step}. It can go on where it was."
    return "**Finished**." + (f" The same as {job.repeats}, bit for bit." if queue.is_same(job) else "")


def _line(queue: Queue, name: str) -> str:
    """Returns who is painted and who waits, in order, the chosen one in bold."""
    waiting = [f"**{job.name}**" if job.name == name else job.name for job in queue.waiting()]
    return "In the queue: " + ", ".join(waiting) if waiting else ""


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} min"
