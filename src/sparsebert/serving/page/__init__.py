"""The web page at ``/``: the files of ``static/``, under a policy that lets nothing else run.

The page calls the server's own routes and can do only what any client can. Its files are public:
they are served without a key, and the user types a key that the server requires into the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parent / "static"

# Only scripts, styles and requests of this origin; nothing inline; no text is ever parsed as HTML
# (trusted types without a policy); and no other site may frame the page.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # revalidated each time, so that files of two versions never mix
}


class _PageFiles(StaticFiles):
    """Files with `HEADERS`."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS)
        return response


def add_page(app: FastAPI) -> None:
    """Add the page to ``app`` at ``GET /``, and its files below ``/page``."""

    async def page(_request: Request) -> Response:
        return FileResponse(STATIC / "index.html", headers=HEADERS)

    app.add_route("/", page, include_in_schema=False)
    app.mount("/page", _PageFiles(directory=STATIC))
