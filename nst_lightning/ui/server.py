"""Serves the page to whom it is meant for: fonts and files from here alone, no answer to pages of other addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nst_lightning.ui.jobs import Queue
from nst_lightning.ui.page import Page

LOOPBACK = ("127.0.0.1", "localhost")
_CSS = """
#runs .grid-wrap {max-height: none}
@media (max-width: 700px) {#picture {height: 300px !important} #runs .grid-container {grid-template-columns: 1fr 1fr}}
#status p {font-size: 1.05em}
#picture img {width: 100%; height: 100%; object-fit: contain}
"""
_COLOURS = {  # Soft's labels are pale yellow chips with amber text, which is hard to read
    "block_label_background_fill": "*neutral_100",
    "block_label_background_fill_dark": "*neutral_800",
    "block_label_text_color": "*neutral_800",
    "block_label_text_color_dark": "*neutral_100",
    "block_title_background_fill": "none",
    "block_title_background_fill_dark": "none",
    "block_title_padding": "0",
    "block_title_text_color": "*neutral_800",
    "block_title_text_color_dark": "*neutral_100",
    "button_primary_text_color": "*neutral_900",
    "button_primary_text_color_dark": "*neutral_900",
}


@contextmanager
def served(queue: Queue, folder: Path, host: str, port: int, max_upload: int, browser: bool) -> Iterator[str]:
    """Serves the page and yields its address; uploads, of so many bytes at most, are kept in the folder."""
    fonts = ["system-ui", "sans-serif"]  # those of gradio's themes are fetched from another host
    guards = [Middleware(_OwnPages)]
    if host in LOOPBACK:  # else a page of elsewhere, whose name is made to lead here, could talk to this one
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    blocks = Page(queue, folder).blocks
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port,
        allowed_paths=[str(folder.resolve() / each) for each in ("runs", "uploads", "thumbnails")],
        max_file_size=max_upload,
        theme=gr.themes.Soft(primary_hue="amber", neutral_hue="stone", font=fonts, font_mono=fonts).set(**_COLOURS),
        css=_CSS,
        app_kwargs={"middleware": guards},
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        footer_links=[],
    )
    try:
        yield address
    finally:
        blocks.close(verbose=False)


class _OwnPages:
    """Refuses what pages of other addresses send, which gradio only keeps from reading the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "origin" in headers and urlsplit(headers["origin"]).netloc != headers.get("host"):
            await PlainTextResponse("pages of other addresses are not answered", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)
