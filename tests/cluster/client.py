"""Clients of a cluster that breaks: they speak the protocol themselves, hundreds of them in one process, come back
when something breaks off, and write in the books what they were told."""

import asyncio
import json
import time
from collections import Counter

API = "/gradio_api"

# After how many seconds without an answer a request counts as lost: it may have been taken, or not.
ANSWER = 8

# After how many seconds without a word a stream is opened again; a heartbeat comes every 15.
SILENCE = 20

# For how long a client asks for an end before it gives up.
PATIENCE = 120

LOST = (OSError, EOFError, ValueError, asyncio.TimeoutError, asyncio.IncompleteReadError)


class Answer:
    """Of HTTP/1.0: its body ends with the connection, so that nothing has to be decoded."""

    def __init__(self, reader, writer, status, headers):
        self.reader, self.writer, self.status, self.headers = reader, writer, status, headers

    async def body(self):
        return await self.reader.readexactly(int(self.headers["content-length"]))

    async def messages(self):
        """Of a stream of server-sent events: the id and the name, where it has them, and the data."""
        id, name = None, None
        while line := await asyncio.wait_for(self.reader.readline(), SILENCE):
            if not line.endswith(b"\n"):
                raise EOFError("the stream breaks off")
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "id":
                id = value
            elif field == "event":
                name = value
            elif field == "data":
                yield id, name, json.loads(value)

    def close(self):
        self.writer.close()


async def request(port, method, path, body=None, headers=()):
    """The answer's head; whoever calls this closes it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    try:
        payload = b"" if body is None else json.dumps(body).encode()
        head = [f"{method} {path} HTTP/1.0", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(payload)}"]
        head += [f"{name}: {value}" for name, value in headers]
        writer.write("\r\n".join([*head, "", ""]).encode() + payload)
        status = (await reader.readline()).split()
        if len(status) < 2:
            raise EOFError("no answer")
        found = {}
        while (line := await reader.readline()).strip():
            name, _, value = line.decode().partition(":")
            found[name.lower()] = value.strip()
        return Answer(reader, writer, int(status[1]), found)
    except BaseException:
        writer.close()
        raise


async def get_json(port, path):
    answer = await request(port, "GET", path)
    try:
        return json.loads(await answer.body())
    finally:
        answer.close()


async def listeners(port):
    """The number of each, by name."""
    config = await get_json(port, "/config")
    return {listener["api_name"]: listener["id"] for listener in config["dependencies"]}


def end_of(outputs):
    """What the books have as an end: which run gave it, or an error. A call that was cancelled has no outputs."""
    if outputs is None:
        return {"error": "Cancelled"}
    [done] = outputs
    return {"attempt": done["attempt"], "pid": done["pid"]}


class Client:
    """One session. `drops` is how likely it is, after each message, that it closes its stream and comes back. At
    `until`, by its loop's clock, it gives up; by default each time after a while."""

    def __init__(self, name, port, books, random, *, functions, drops=0.0, until=None):
        self.name, self.port, self.books, self.random = name, port, books, random
        self.session = f"session-{name}-{random.getrandbits(64):x}"
        self.functions, self.drops, self.until = functions, drops, until
        self.sent = 0
        self.last_id = None
        # Accepted, and without an end: the listener by event.
        self.open = {}
        self.met = Counter()
        # Where the last stream was, and when it began.
        self.stream = (None, None)
        # Called with each end.
        self.when_ended = lambda: None

    async def join(self, listener, ms):
        """Gives the event's id, or None where it wasn't accepted or that can't be known."""
        self.sent += 1
        tag = f"{self.name}-{self.sent}"
        self.books.note("sent", tag=tag)
        body = {"session_hash": self.session, "fn_index": self.functions[listener], "data": [ms, tag]}
        try:
            async with asyncio.timeout(ANSWER):
                answer = await request(self.port, "POST", f"{API}/queue/join", body)
                try:
                    text = await answer.body()
                finally:
                    answer.close()
        except LOST as error:
            return self.without_answer(repr(error))
        if answer.status == 200:
            event = json.loads(text)["event_id"]
            self.books.note("accepted", tag=tag, event=event)
            self.open[event] = listener
            return event
        if answer.status in (502, 504):
            # Nobody knows what has become of it.
            return self.without_answer(f"{answer.status}: {text[:80].decode(errors='replace')}")
        self.met[f"refusals, {answer.status}: {text[:80].decode(errors='replace')}"] += 1
        self.books.note("refused", tag=tag)
        return None

    def without_answer(self, why):
        self.met["requests without an answer"] += 1
        self.met[f"there of {why}"] += 1

    async def follow(self):
        """Reads the session's stream until all that is open has its end, whatever breaks meanwhile."""
        loop = asyncio.get_running_loop()
        deadline = self.until or loop.time() + PATIENCE
        while self.open and loop.time() < deadline:
            try:
                # A stream may stay open, and say nothing.
                async with asyncio.timeout_at(deadline):
                    fetches = await self.read()
                if fetches:
                    # Whoever has the session doesn't know all of these events: their ends can be asked for.
                    for event in list(self.open):
                        await self.fetch(event, deadline)
            except LOST:
                self.met["streams that broke off"] += 1
            await asyncio.sleep(self.random.uniform(0, 0.2))
        for event in self.open:
            self.met["events given up"] += 1
            node, since = self.stream
            self.books.note("given up", event=event, session=self.session, node=node, since=since)
        self.open.clear()

    async def read(self):
        """One stream, to its end or until it is dropped. Tells whether events have to be fetched."""
        headers = [("Accept", "text/event-stream")]
        if self.last_id:
            headers.append(("Last-Event-ID", self.last_id))
        path = f"{API}/queue/data?session_hash={self.session}"
        answer = await asyncio.wait_for(request(self.port, "GET", path, headers=headers), ANSWER)
        self.stream = (answer.headers.get("x-upstream"), time.monotonic_ns())
        try:
            if answer.status != 200:
                self.met[f"streams refused, {answer.status}"] += 1
                return False
            async for id, _, message in answer.messages():
                self.last_id = id or self.last_id
                if message["msg"] == "unexpected_error":
                    self.met["sessions not found"] += 1
                    self.last_id = None
                    return True
                if message["msg"] == "close_stream":
                    return bool(self.open)
                self.receive(message)
                if not self.open:
                    return False
                if self.random.random() < self.drops:
                    self.met["streams dropped"] += 1
                    return False
            raise EOFError("the stream breaks off")
        finally:
            answer.close()

    def receive(self, message):
        event = message.get("event_id")
        if message["msg"] != "process_completed" or event not in self.open:
            return
        if message["success"]:
            self.ended(event, end_of(message["output"]["data"]))
        elif "goes on once the service is back" in message["output"]["error"]:
            self.met["events told to wait for the next process"] += 1
        else:
            self.ended(event, {"error": message["output"]["error"]})

    def ended(self, event, end):
        self.books.note("ended", event=event, end=end)
        self.open.pop(event, None)
        self.when_ended()

    async def fetch(self, event, deadline=None, listener="work"):
        """Asks for one event's end, again and again."""
        loop = asyncio.get_running_loop()
        deadline = deadline or loop.time() + PATIENCE
        listener = self.open.get(event, listener)
        while loop.time() < deadline:
            try:
                if await self.asked(event, listener):
                    return True
            except LOST:
                self.met["streams that broke off"] += 1
            await asyncio.sleep(self.random.uniform(0, 0.5))
        return False

    async def asked(self, event, listener):
        answer = await asyncio.wait_for(request(self.port, "GET", f"{API}/call/{listener}/{event}"), ANSWER)
        try:
            if answer.status != 200:
                self.met[f"fetches refused, {answer.status}"] += 1
                return False
            async for _, name, data in answer.messages():
                if name == "complete":
                    self.ended(event, end_of(data))
                    return True
                if name == "error":
                    if data == "404: Not Found":
                        self.met["events not found"] += 1
                        return False
                    error = data["error"] if isinstance(data, dict) else data
                    if "goes on once the service is back" in str(error):
                        return False
                    self.ended(event, {"error": error})
                    return True
        finally:
            answer.close()
        raise EOFError("the stream breaks off")
