"""Nodes and servers are killed, frozen and cut off under load; the books must be right in the end.

CHAOS_SECONDS (180), CHAOS_CLIENTS (500) and CHAOS_SEED (any) say how much of it.
"""

import asyncio
import os
import re
from collections import Counter
from random import Random, SystemRandom

from books import audit
from client import PATIENCE, Client, listeners
from harness import LIMITS, STANDS_BY, Faults

SECONDS = float(os.environ.get("CHAOS_SECONDS", 180))
CLIENTS = int(os.environ.get("CHAOS_CLIENTS", 500))
SEED = int(os.environ.get("CHAOS_SEED", SystemRandom().randrange(1 << 32)))

# How many ends are asked for once more in the end, of those that their clients got by their streams.
ASKED_AGAIN = 1000


def work(random):
    """Milliseconds. Most are over soon; some are long enough to be cut off, and to outlive a lease."""
    kind = random.random()
    if kind < 0.01:
        return random.randrange(5_000, 9_000)
    return random.randrange(300, 700) if kind < 0.1 else random.randrange(5, 50)


async def visit(client, over):
    while not over.is_set():
        for _ in range(client.random.choice([1, 1, 1, 2, 3])):
            await client.join("work", work(client.random))
        if client.open:
            await client.follow()
        else:
            await asyncio.sleep(client.random.uniform(0.1, 1))


async def load(cluster, seconds, random):
    """As many clients, until the time is up and all have what they wait for. Gives what they have met."""
    port, functions = cluster.nginx.port, await listeners(cluster.nginx.port)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.call_later(seconds, over.set)
    # By then all is whole again for long enough.
    until = loop.time() + seconds + PATIENCE
    clients = [
        Client(
            f"client-{n}", port, cluster.books, Random(random.random()), functions=functions, drops=0.03, until=until
        )
        for n in range(CLIENTS)
    ]
    await asyncio.gather(*(visit(client, over) for client in clients))
    return sum((client.met for client in clients), Counter())


async def ask_again(cluster, random):
    """For each end that no client got, and for some that they did."""
    entries = cluster.books.entries()
    accepted = [entry["event"] for entry in entries if entry["what"] == "accepted"]
    ended = {entry["event"] for entry in entries if entry["what"] == "ended"}
    asked = [event for event in accepted if event not in ended]
    asked += random.sample(sorted(ended), min(ASKED_AGAIN, len(ended)))
    clients = [Client(f"asks-{n}", cluster.nginx.port, cluster.books, Random(n), functions={}) for n in range(50)]

    deadline = asyncio.get_running_loop().time() + PATIENCE

    async def ask(client, events):
        for event in events:
            await client.fetch(event, deadline)

    await asyncio.gather(*(ask(client, asked[n::50]) for n, client in enumerate(clients)))
    return sum((client.met for client in clients), Counter())


async def during(cluster, faults, random):
    """Faults end when the time is up; then the clients get what they wait for."""
    asyncio.get_running_loop().call_later(SECONDS, faults.mending.set)
    return await load(cluster, SECONDS, random)


def test_the_books_are_right_whatever_breaks(start, say):
    say(f"{CLIENTS} clients for {SECONDS:.0f} s, CHAOS_SEED={SEED}")
    random = Random(SEED)
    cluster = start()
    faults = Faults(cluster, Random(random.random()))
    faults.start()
    try:
        met = asyncio.run(during(cluster, faults, random))
    finally:
        faults.stop()
    met += asyncio.run(ask_again(cluster, random))
    found = audit(cluster.books.entries(), LIMITS)
    say(f"broken: {', '.join(f'{count} {what}' for what, count in sorted(Counter(faults.injected).items()))}")
    say(f"met: {', '.join(f'{count} {what}' for what, count in sorted(met.items()))}")
    say(f"books: {found}")
    assert faults.errors == []
    violations = found.violations
    if STANDS_BY:
        # There a first start isn't waited for by its record.
        again = re.compile("attempt 1 of .* begins(, and has begun before| after attempt 1 of )")
        violations = [violation for violation in violations if not again.match(violation)]
    assert violations == [], f"{len(violations)} violations; the books are in {cluster.directory}"
    # Nobody waits on a stream for an end that it never says.
    assert met["events given up"] == 0
    # And something has been tried.
    assert len(faults.injected) >= min(6, SECONDS / 10)
    assert found.counts["accepted"] > CLIENTS
    assert STANDS_BY or (faults.exited == [] and found.most["work"] == LIMITS["work"])
