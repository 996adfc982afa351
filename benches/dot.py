"""How long a client waits for the 250 after its final dot, while so many clients send so many messages a second between them, each in its turn.

    python3 benches/dot.py SESSIONS SECONDS SIZE PORT RATE

Prints messages a second, and of the waits the median, the 99th of a hundred and the longest, in milliseconds. Used by benches/ingest.sh.
"""

import asyncio
import sys
import time

SESSIONS, SECONDS, SIZE, PORT, RATE = (kind(word) for kind, word in zip((int, float, int, int, float), sys.argv[1:]))
LINE = b"x" * 70 + b"\r\n"
BODY = b"Subject: bench\r\n\r\n" + LINE * (SIZE // len(LINE)) + b".\r\n"
waits = []


async def command(reader, writer, text, code):
    writer.write(text)
    while True:
        line = await reader.readline()
        if line[3:4] != b"-":
            break
    if not line.startswith(code):
        raise SystemExit(f"{text[:40]!r}: {line!r}")


async def session(number, until):
    due = time.monotonic() + number / RATE
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    await command(reader, writer, b"", b"220")
    await command(reader, writer, b"EHLO bench.test\r\n", b"250")
    while due < until:
        await asyncio.sleep(max(0, due - time.monotonic()))
        due += SESSIONS / RATE
        await command(reader, writer, b"MAIL FROM:<a@src.test>\r\n", b"250")
        await command(reader, writer, b"RCPT TO:<b@dest.test>\r\n", b"250")
        await command(reader, writer, b"DATA\r\n", b"354")
        begin = time.perf_counter()
        await command(reader, writer, BODY, b"250")
        waits.append(time.perf_counter() - begin)
    writer.close()


async def main():
    # What there is to be warmed is warmed first.
    await asyncio.gather(*(session(n, time.monotonic() + 0.5) for n in range(SESSIONS)))
    waits.clear()
    await asyncio.gather(*(session(n, time.monotonic() + SECONDS) for n in range(SESSIONS)))
    waits.sort()
    at = lambda share: 1000 * waits[min(len(waits) - 1, int(share * len(waits)))]
    print(f"{len(waits) / SECONDS:.0f} {at(0.5):.2f} {at(0.99):.2f} {1000 * waits[-1]:.2f}")


asyncio.run(main())
