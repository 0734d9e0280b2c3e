"""Posts files to the server API with a library: `python.py LIBRARY URL KEY FILE...`.

Prints each answer's status and body on a line.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import aiohttp
import httpx
import requests


def with_requests(url: str, key: str, bodies: list[bytes]) -> None:
    with requests.Session() as session:
        for body in bodies:
            answer = session.post(url, body, headers={"X-API-Key": key}, timeout=10)
            print(answer.status_code, answer.text)


def with_httpx(url: str, key: str, bodies: list[bytes]) -> None:
    with httpx.Client(timeout=10) as client:
        for body in bodies:
            answer = client.post(url, content=body, headers={"X-API-Key": key})
            print(answer.status_code, answer.text)


def with_aiohttp(url: str, key: str, bodies: list[bytes]) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for body in bodies:
                async with session.post(url, data=body, headers={"X-API-Key": key}) as answer:
                    print(answer.status, await answer.text())

    asyncio.run(main())


LIBRARIES = {"requests": with_requests, "httpx": with_httpx, "aiohttp": with_aiohttp}

if __name__ == "__main__":
    library, url, key, *files = sys.argv[1:]
    LIBRARIES[library](url, key, [Path(file).read_bytes() for file in files])
