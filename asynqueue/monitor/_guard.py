"""Which requests are answered, and what a browser may do with the answers."""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urlsplit

from twisted.web.iweb import IRequest

#: Sent with all that is served. The page takes nothing from elsewhere, has no text made
#: code, can't be framed, and tells nobody where it is.
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self';"
    " style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def secure(request: IRequest) -> None:
    """Have browsers keep the answer to its own origin."""
    for name, value in _HEADERS.items():
        request.setHeader(name, value)


def objection(request: IRequest, hosts: Collection[str], isPage: bool) -> str | None:
    """
    Say why a request to one of these hosts is refused, as a page of another origin
    could have a browser make it; C{None} if it's to be answered. Other sites may have
    links to the page itself.
    """
    host = request.getHeader("Host") or ""
    if not _isKnown(host, hosts):
        return (
            f"The host {host!r} isn't known here. The application can name it:"
            " Monitor(q, hosts=[...])."
        )
    origin = request.getHeader("Origin")
    if origin is not None and not _isAt(origin, host):
        return "Requests of other origins aren't answered."
    site = request.getHeader("Sec-Fetch-Site")
    if site not in (None, "same-origin", "none") and not (
        isPage and request.getHeader("Sec-Fetch-Mode") == "navigate"
    ):
        return "Requests of other sites aren't answered."
    if request.method == b"POST" and origin is None and site != "same-origin":
        return "A request that changes something must say where it comes from."
    return None


def _isKnown(host: str, hosts: Collection[str]) -> bool:
    """
    Whether a host can be meant. A name that isn't known may be another site's, which
    lets it stand for this machine's address (DNS rebinding).
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name in hosts or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _isAt(origin: str, host: str) -> bool:
    scheme, _, place = origin.lower().partition("://")
    return scheme in ("http", "https") and place == host.lower()
