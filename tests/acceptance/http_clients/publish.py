"""Posts files to the server API with a library: `publish.py LIBRARY URL KEY FILE...`.

Prints status and body of each response on one line.
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
            response = session.post(url, body, headers={"X-API-Key": key}, timeout=10)
            print(response.status_code, response.text)


def with_httpx(url: str, key: str, bodies: list[bytes]) -> None:
    with httpx.Client(timeout=10) as client:
        for body in bodies:
            response = client.post(url, content=body, headers={"X-API-Key": key})
            print(response.status_code, response.text)


def with_aiohttp(url: str, key: str, bodies: list[bytes]) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            for body in bodies:
                async with session.post(url, data=body, headers={"X-API-Key": key}) as response:
                    print(response.status, await response.text())

    asyncio.run(main())


LIBRARIES = {"requests": with_requests, "httpx": with_httpx, "aiohttp": with_aiohttp}

if __name__ == "__main__":
    library, url, key, *files = sys.argv[1:]
    LIBRARIES[library](url, key, [Path(file).read_bytes() for file in files])
