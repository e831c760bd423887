"""Seconds of CPU to decode chunked bodies as they come off a socket, 16 KiB a read (threat E5: below 1 s).

Run: python -m benchmarks.micro.chunked.
"""

from __future__ import annotations

import time

from ambassador.wire.chunked import LAST_CHUNK, ChunkedReader, chunk
from ambassador.wire.head import HeadLimits, LineCache

READ = 16384
TOTAL = 1_000_000


def seconds(received: bytes) -> float:
    reader = ChunkedReader(LineCache(lambda _name: 0), HeadLimits())
    began = time.process_time()
    for position in range(0, len(received), READ):
        reader.feed(received[position : position + READ])
    spent = time.process_time() - began
    assert reader.done
    return spent


def main() -> None:
    for size in (1, 10, 1000, 16384, TOTAL):
        data = b"x" * size
        received = (chunk(data) + data + b"\r\n") * (TOTAL // size) + LAST_CHUNK
        print(f"1 MB in chunks of {size:7}: {min(seconds(received) for _ in range(3)):.4f} s")


if __name__ == "__main__":
    main()
