"""Echo or broadcast over WebSocket with the library `websockets`, for `perf/other.sh`.

    server.py echo|broadcast

Prints the address that it listens on. A broadcast goes to everybody but its sender.
"""

import asyncio
import sys

from websockets.asyncio.server import broadcast, serve
from websockets.exceptions import ConnectionClosed


async def main(mode):
    connections = set()

    async def handle(connection):
        connections.add(connection)
        try:
            async for message in connection:
                if mode == "echo":
                    await connection.send(message)
                else:
                    broadcast(connections - {connection}, message)
        except ConnectionClosed:
            # The load leaves without a close frame.
            pass
        finally:
            connections.discard(connection)

    # No compression and no pings, like everything else that is measured here.
    settings = {"compression": None, "ping_interval": None, "backlog": 4096}
    async with serve(handle, "127.0.0.1", 0, **settings) as server:
        host, port = server.sockets[0].getsockname()
        print(f"{host}:{port}", flush=True)
        await server.serve_forever()


if len(sys.argv) != 2 or sys.argv[1] not in ("echo", "broadcast"):
    sys.exit("usage: server.py echo|broadcast")
asyncio.run(main(sys.argv[1]))
