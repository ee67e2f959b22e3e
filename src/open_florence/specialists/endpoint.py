"""Questions to a language model behind an OpenAI-compatible endpoint: POST {url}/chat/completions, by urllib alone."""

from __future__ import annotations

import http.client
import json
import logging
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple

from open_florence.errors import OpenFlorenceError

log = logging.getLogger(__name__)

Message = dict[str, Any]
"""{"role": "system", "user" or "assistant", "content": text, or a list of parts}."""

LONGEST_PAUSE = 60.0
"""Seconds; also where a server asks for more."""
MOST_BYTES = 1 << 22
"""An answer that is longer is refused."""
PASSING = {408, 409, 425, 429}
"""Statuses, besides 500 and above, that another attempt may not meet."""


class Reply(NamedTuple):
    """What the model said, in one line, and whether it had come to an end."""

    text: str
    whole: bool


class Endpoint:
    """A model of a server, asked with temperature 0, again after a pause when the server is busy, broken or silent."""

    def __init__(
        self, url: str, model: str, *, key_variable: str = "", request_timeout: float = 60.0, retries: int = 4
    ) -> None:
        """`url` is what stands before /chat/completions, as https://api.openai.com/v1.

        `key_variable` names the environment variable that holds the key; it is sent to this address alone: redirects
        are refused. `retries` are the attempts after the first, with pauses of 1, 2, 4, ... seconds, or what the server
        asks for. Raises OpenFlorenceError for an address that is none and for a variable that is empty.
        """
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise OpenFlorenceError(f"an endpoint is an address that begins with http:// or https://, not {url!r}")
        self._key = os.environ.get(key_variable, "").strip() if key_variable else ""
        if key_variable and not self._key:
            raise OpenFlorenceError(f"the environment variable {key_variable} holds no key for {url}")
        self.url, self.model = url.rstrip("/"), model
        self._timeout, self._retries = request_timeout, max(0, retries)
        self._open = urllib.request.build_opener(_NoRedirects).open

    def ask(self, messages: Sequence[Message]) -> Reply:
        """The answer to a conversation. Raises OpenFlorenceError when there is none, with the server's reason."""
        body = json.dumps({"model": self.model, "messages": list(messages), "temperature": 0}).encode()
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        request = urllib.request.Request(f"{self.url}/chat/completions", body, headers)
        for attempt in range(self._retries + 1):
            try:
                with self._open(request, timeout=self._timeout) as response:
                    return _reply(response.read(MOST_BYTES + 1))
            except urllib.error.HTTPError as error:
                with error:
                    reason = f"it answered {error.code}: {self._without_key(error.read(2000))}"
                asked_for = error.headers.get("Retry-After", "")
                if error.code not in PASSING and error.code < 500:
                    raise OpenFlorenceError(f"{self.url} refused the question: {reason}") from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                reason, asked_for = str(error) or type(error).__name__, ""
            if attempt < self._retries:
                pause = float(asked_for) if asked_for.isdigit() else 2.0**attempt
                log.info("%s: %s; another attempt in %g s", self.url, reason, min(pause, LONGEST_PAUSE))
                time.sleep(min(pause, LONGEST_PAUSE))
        raise OpenFlorenceError(f"{self.url} gave no answer in {self._retries + 1} attempts: {reason}")

    def _without_key(self, body: bytes) -> str:
        """The beginning of what a server said, in one line; servers may repeat the key."""
        text = " ".join(body.decode("utf-8", "replace").split())
        return (text.replace(self._key, "***") if self._key else text)[:200]


def _reply(body: bytes) -> Reply:
    """The answer in the body of a response. Raises ValueError where it holds none."""
    if len(body) > MOST_BYTES:
        raise ValueError(f"its answer is longer than {MOST_BYTES} bytes")
    try:
        choice = json.loads(body)["choices"][0]
        text, whole = choice["message"]["content"], choice.get("finish_reason") != "length"
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"its answer is not that of a chat: {body[:100].decode('utf-8', 'replace')!r}") from None
    if not isinstance(text, str) or not text.strip():
        raise ValueError("its answer is empty")
    return Reply(" ".join(text.split()), whole)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """urllib would send the key along to wherever a server points."""

    def redirect_request(self, *_: Any) -> None:
        return None
