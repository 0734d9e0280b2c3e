"""Publishes the numbers from 1 on: `numbering_producer.py PORT CHANNEL RECORD LAST`.

The file RECORD has the number that was sent last. After a start this number is sent again, because whether the server
has stored the publication is not known.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path


def write_record(record: Path, number: int) -> None:
    """Replaces the file in one step."""
    new = record.with_suffix(".new")
    new.write_text(str(number))
    os.replace(new, record)


def main(port: int, channel: str, record: Path, last: int) -> None:
    first = int(record.read_text()) if record.exists() else 1
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for number in range(first, last + 1):
        write_record(record, number)
        body = json.dumps({"channel": channel, "data": number, "producer": "orders", "seq": number})
        connection.request("POST", "/api/publish", body, {"X-API-Key": "api_key"})
        response = json.loads(connection.getresponse().read())
        assert response["result"]["offset"] == number, response


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
