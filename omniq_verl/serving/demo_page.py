"""The page ``/demo``: users drop images on it, and it shows the answers of the routes."""

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

DEMO = "/demo"
_PAGE = Path(__file__).parent / "templates" / "demo.html"
_HEADERS = {
    # The page is one file. It talks only to its own server, and no other site can show it in a frame.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " img-src blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
}


def add_demo(app: FastAPI) -> None:
    """Serve the page without requiring a key; the page asks for one if the routes need it."""
    page = _PAGE.read_text(encoding="utf-8")

    @app.get(DEMO, response_class=HTMLResponse, tags=["state"])
    async def demo() -> HTMLResponse:
        """A page to try the model in a browser."""
        return HTMLResponse(page, headers=_HEADERS)
