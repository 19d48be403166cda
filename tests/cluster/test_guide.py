"""The guide's example on three nodes: three listeners on one queue, two at once in the whole cluster."""

import asyncio
import json
import time

from books import audit
from client import API, end_of, listeners, request
from harness import LIMITS, STANDS_BY


async def join(port, functions, listener, session, books):
    body = {"session_hash": session, "fn_index": functions[listener], "data": [500, session]}
    books.note("sent", tag=session)
    answer = await request(port, "POST", f"{API}/queue/join", body)
    assert answer.status == 200
    event = json.loads(await answer.body())["event_id"]
    answer.close()
    books.note("accepted", tag=session, event=event)
    return event


async def messages(port, session):
    answer = await request(port, "GET", f"{API}/queue/data?session_hash={session}")
    found = []
    async for _, _, message in answer.messages():
        if message["msg"] == "close_stream":
            break
        found.append(message)
    answer.close()
    return found


async def six(cluster, name):
    """Six visitors, one after the other, each at whichever node is next. What each was told, and how long all took."""
    port, functions = cluster.nginx.port, await listeners(cluster.nginx.port)
    sessions = [f"{name}-{n}" for n in range(6)]
    begun = time.monotonic()
    for n, session in enumerate(sessions):
        await join(port, functions, f"gpu_{1 + n % 3}", session, cluster.books)
    told = await asyncio.gather(*(messages(port, session) for session in sessions))
    seconds = time.monotonic() - begun
    for found in told:
        completed = found[-1]
        assert (completed["msg"], completed["success"]) == ("process_completed", True), found
        end = end_of(completed["output"]["data"])
        cluster.books.note("ended", event=completed["event_id"], end=end)
    return told, seconds


def test_two_at_once_in_the_whole_cluster(start, say):
    cluster = start()
    # Once before it counts: connections are made, and run times known.
    asyncio.run(six(cluster, "first"))
    told, seconds = asyncio.run(six(cluster, "then"))
    ranks = [[message["rank"] for message in found if message["msg"] == "estimation"] for found in told]
    # Two begin at once, whether or not they are told that they were next; the others are told each step.
    assert all(found in ([], [0]) for found in ranks[:2]), ranks
    for n, found in enumerate(ranks[2:]):
        assert found[0] == n, ranks
        assert found == sorted(found, reverse=True) and found[-1] == 0, ranks
    found = audit(cluster.books.entries(), LIMITS)
    assert found.violations == []
    assert found.most == {"gpu_queue": 2}
    nodes = {entry["node"] for entry in cluster.books.entries() if entry["what"] == "begin"}
    say(f"six events of 0.5 s in {seconds:.2f} s, on the nodes {', '.join(sorted(nodes))}")
    assert 1.5 <= seconds < 1.8
    assert STANDS_BY or len(nodes) > 1
