"""The application's backend for the scenarios: it signs tokens and calls the server API."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.request
import warnings
from typing import Any

import jwt
from jwt.warnings import InsecureKeyLengthWarning

SECRET = "secret"
API_KEY = "api_key"

# The reference configuration's secret is short on purpose, so that it is easy to type.
warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)


def connection_token(user: str, *, ttl_s: float | None = None, **claims: object) -> str:
    """A connection token; a `ttl_s` below zero makes one that has expired."""
    return _sign({"sub": user, "info": {"name": user}}, ttl_s, claims)


def subscription_token(user: str, channel: str, *, ttl_s: float | None = None, **claims: object) -> str:
    """A token with which `user` may subscribe to `channel`."""
    return _sign({"sub": user, "channel": channel, "info": {"role": "guest"}}, ttl_s, claims)


def _sign(standard: dict[str, object], ttl_s: float | None, claims: dict[str, object]) -> str:
    expiry = {} if ttl_s is None else {"exp": math.ceil(time.time() + ttl_s)}
    return jwt.encode(standard | expiry | claims, SECRET, algorithm="HS256")


class Backend:
    """A server, as the application's backend uses it."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """The result of a server API call. Raises AssertionError if the server answers with an error."""
        return await asyncio.to_thread(self._call, method, parameters)

    def _call(self, method: str, parameters: dict[str, object]) -> dict[str, Any]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/{method}",
            json.dumps(parameters).encode(),
            {"Content-Type": "application/json", "X-API-Key": API_KEY},
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def publish(self, channel: str, *values: object) -> None:
        """Publishes the values one after the other."""
        for value in values:
            await self.call("publish", channel=channel, data=value)
