"""A rolling restart under load: every node is stopped in order and started again, twice, and no client notices more
than that it has to come back."""

import asyncio
from collections import Counter
from random import Random

from books import audit
from client import Client, listeners
from harness import LIMITS, STANDS_BY

CLIENTS = 100
ROUNDS = 2

# Ends that clients must have got before the next node is stopped.
BETWEEN = 100


async def visit(client, over):
    while not over.is_set():
        if await client.join("work", client.random.randrange(5, 100)):
            await client.follow()
        else:
            # As anybody would who was told to come back later.
            await asyncio.sleep(client.random.uniform(0.05, 0.3))


async def restart_all(cluster, ends):
    """Each after the others have gone on for a while. Gives the exit codes."""
    codes = []
    for _ in range(ROUNDS):
        for node in cluster.nodes.values():
            enough = ends() + BETWEEN
            async with asyncio.timeout(60):
                while ends() < enough:
                    await asyncio.sleep(0.02)
            codes.append(await asyncio.to_thread(cluster.stop, node))
            await asyncio.to_thread(cluster.restart, node)
            await asyncio.to_thread(cluster.take_back)
            await asyncio.to_thread(cluster.wait_until_ready)
    return codes


async def roll(cluster):
    port, functions = cluster.nginx.port, await listeners(cluster.nginx.port)
    over = asyncio.Event()
    clients = [
        Client(f"client-{n}", port, cluster.books, Random(n), functions=functions) for n in range(CLIENTS)
    ]
    got = Counter()
    for client in clients:
        client.when_ended = lambda: got.update(ends=1)
    visits = asyncio.gather(*(visit(client, over) for client in clients))
    try:
        codes = await restart_all(cluster, lambda: got["ends"])
    finally:
        over.set()
        await visits
    return codes, sum((client.met for client in clients), Counter())


def test_a_rolling_restart(start, say):
    cluster = start()
    codes, met = asyncio.run(roll(cluster))
    found = audit(cluster.books.entries(), LIMITS)
    say(f"met: {', '.join(f'{count} {what}' for what, count in sorted(met.items()))}")
    say(f"books: {found}")
    assert found.violations == []
    assert found.counts["ended"] == found.counts["accepted"]
    # Nothing was cut off: what ran when its node was stopped ended there.
    assert found.counts["interrupted"] == 0
    if not STANDS_BY:
        assert codes == [0] * len(codes)
        # A client can't know what has become of a request that isn't answered, and a session is never lost.
        assert met["requests without an answer"] == met["sessions not found"] == met["events not found"] == 0
        assert met["events told to wait for the next process"] == 0
