"""The headers that tell a browser to be careful, on each answer that does not say something else itself."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
DOCS = PAGE.replace("img-src 'self'", "img-src 'self' data:")
"""Swagger UI has its icons in its style."""
DASHBOARD = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
"""Bokeh writes scripts into its pages."""
COMMON = {
    "X-Content-Type-Options": "nosniff",
    # `no-referrer` would take the origin off the forms of our own pages, too
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
HSTS = "max-age=31536000"


class SecureHeaders:
    """An application whose answers carry these headers.

    Parameters
    ----------
    app : callable
        The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add to each answer what it lacks."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = _HEADERS[scope["scheme"] == "https", _part(scope["path"])]

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [header for header in wanted if header[0] not in names]
            await send(message)

        await self._app(scope, receive, careful)


def _part(path: str) -> str:
    if path == "/docs":
        return DOCS
    return DASHBOARD if path.startswith("/dask/") else PAGE


def _encoded(policy: str, *, https: bool) -> list[tuple[bytes, bytes]]:
    found = {**COMMON, "Content-Security-Policy": policy}
    if https:
        found["Strict-Transport-Security"] = HSTS
    return [(name.lower().encode(), value.encode()) for name, value in found.items()]


_HEADERS = {
    (https, policy): _encoded(policy, https=https)
    for https in (False, True)
    for policy in (PAGE, DOCS, DASHBOARD)
}
