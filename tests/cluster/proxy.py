"""Forwards TCP connections: `proxy.py PORT:TARGET…`, all on loopback.

A process, so that it breaks as a network does: frozen (SIGSTOP), what is on the way is silent and arrives late;
killed, connections break.
"""

import asyncio
import sys


async def pump(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def listen(port, target):
    async def forward(reader, writer):
        try:
            there, back = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, back), pump(there, writer))

    return await asyncio.start_server(forward, "127.0.0.1", port)


async def main():
    servers = [await listen(*map(int, pair.split(":"))) for pair in sys.argv[1:]]
    await asyncio.gather(*(server.serve_forever() for server in servers))


asyncio.run(main())
