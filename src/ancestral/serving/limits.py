"""What one server takes on, and the refusal of what is beyond it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.exceptions import HTTPException


@dataclass(frozen=True)
class Limits:
    """Bounds on what clients may ask for.

    Attributes:
        slots: streams drawn together.
        queue: streams that may wait for a slot; further ones are refused (429).
        body: bytes of a request; larger ones are refused (413).
        symbols: symbols that a request may ask for, per item.
        prompt: symbols of a prompt.
        items: items that a request may hold or ask for, times its draws.
        verbs: requests to the verbs that may wait for the one that is worked on; further ones are refused (429).
        pixels: of one image.
    """

    slots: int = 64
    queue: int = 256
    body: int = 16 << 20
    symbols: int = 4096
    prompt: int = 1 << 16
    items: int = 1024
    verbs: int = 16
    pixels: int = 1 << 24


class Refusal(HTTPException):
    """A request that is not answered, and why.

    Args:
        message: one sentence for the client.
        status: of HTTP.
        code: a word for programs.
        param: the field that is wrong.
        retry: seconds after which to try again.
    """

    def __init__(
        self, message: str, status: int = 400, code: str = "invalid", param: str | None = None, retry: int | None = None
    ):
        super().__init__(status, message, None if retry is None else {"Retry-After": str(retry)})
        self.status, self.code, self.param = status, code, param

    def body(self) -> dict[str, object]:
        """The JSON that says so, in OpenAI's form."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        return {"error": {"message": self.detail, "type": kind, "param": self.param, "code": self.code}}


def busy(what: str, retry: int) -> Refusal:
    """Too much is waiting already."""
    return Refusal(f"{what}; try again in {retry} s", 429, "overloaded", retry=retry)
