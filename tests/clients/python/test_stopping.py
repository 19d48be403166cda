"""Servers that are stopped, in good order or not."""

import json
import signal
import threading
import time

import httpx
import pytest
from conftest import DURABLE

SESSION = "a-session"


def join(server, data, fn_index=2, session=SESSION):
    body = {"data": data, "fn_index": fn_index, "session_hash": session}
    answer = httpx.post(f"{server.address}/gradio_api/queue/join", json=body)
    return answer.status_code, answer.json()


class Reader(threading.Thread):
    """Reads a session's stream in the background."""

    def __init__(self, server, session=SESSION):
        super().__init__(daemon=True)
        self.url = f"{server.address}/gradio_api/queue/data"
        self.session = session
        self.messages = []
        self.broken = False
        self.start()

    def run(self):
        try:
            with httpx.stream("GET", self.url, params={"session_hash": self.session}, timeout=60) as answer:
                for line in answer.iter_lines():
                    if line.startswith("data:"):
                        self.messages.append(json.loads(line[5:]))
        except httpx.HTTPError:
            self.broken = True

    def until(self, msg, times=1):
        deadline = time.monotonic() + 60
        while sum(message["msg"] == msg for message in self.messages) < times:
            assert time.monotonic() < deadline, f"waited in vain for {msg}: {self.messages}"
            time.sleep(0.005)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_lets_running_events_finish_and_tells_the_others(start, how):
    server = start()
    # One that runs, on the queue of one slot, and one that waits behind it.
    _, running = join(server, [3000], fn_index=16)
    _, waiting = join(server, [1], fn_index=16)
    reader = Reader(server)
    reader.until("process_starts")
    assert server.process.poll() is None
    server.process.send_signal(how)
    reader.until("process_completed")
    # Notified at once, while the other still runs; and nobody else gets in.
    [message] = [m for m in reader.messages if m["msg"] == "process_completed"]
    assert message["event_id"] == waiting["event_id"]
    stopped = "goes on once the service is back" if DURABLE else "Queue is stopped."
    assert stopped in message["output"]["error"]
    assert join(server, [1]) == (503, {"detail": "Queue is stopped."})
    reader.until("process_completed", times=2)
    last = [m for m in reader.messages if m["msg"] == "process_completed"][-1]
    assert (last["event_id"], last["output"]["data"]) == (running["event_id"], [3000.0])
    reader.until("close_stream")
    assert server.process.wait(timeout=30) == 0
    reader.join(timeout=30)
    assert not reader.broken


def test_an_event_that_takes_too_long_is_told_and_a_heartbeat_keeps_nobody(start):
    server = start()
    join(server, [600_000], fn_index=16)
    reader = Reader(server)
    reader.until("process_starts")
    with httpx.stream("GET", f"{server.address}/gradio_api/heartbeat/{SESSION}", timeout=60) as beat:
        lines = beat.iter_lines()
        assert next(lines) == "data: ALIVE"
        server.process.send_signal(signal.SIGTERM)
        reader.until("process_completed")
        assert reader.messages[-1]["msg"] in ("process_completed", "close_stream")
        assert server.process.wait(timeout=30) == 0
        assert list(lines) == [""]


def test_a_second_signal_stops_at_once(start):
    # Without the second, this would take an hour.
    server = start(CONFORMANCE_GRACE="3600")
    join(server, [7_200_000], fn_index=16)
    reader = Reader(server)
    reader.until("process_starts")
    server.process.send_signal(signal.SIGTERM)
    # Between the two the queue must have heard of the first.
    while join(server, [1])[0] != 503:
        pass
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=60) == 0


def test_after_a_crash_clients_hear_at_once_that_nobody_knows_them(start, tmp_path):
    cache = tmp_path / "cache"
    server = start(CONFORMANCE_CACHE_DIR=str(cache))
    port = int(server.address.rsplit(":", 1)[1])
    for n in range(50):
        join(server, [60_000], fn_index=2, session=f"session {n}")
    readers = [Reader(server, f"session {n}") for n in range(50)]
    for reader in readers[:8]:
        reader.until("process_starts")
    kept = httpx.post(f"{server.address}/gradio_api/upload", files=[("files", ("a.txt", b"kept"))]).json()[0]

    def upload():
        def endless():
            yield b"--b\r\nContent-Disposition: form-data; name=\"files\"; filename=\"half.txt\"\r\n\r\n"
            while True:
                yield b"x" * 1000
                time.sleep(0.001)

        headers = {"content-type": "multipart/form-data; boundary=b"}
        try:
            httpx.post(f"{server.address}/gradio_api/upload", content=endless(), headers=headers)
        except httpx.HTTPError:
            pass

    uploads = [threading.Thread(target=upload, daemon=True) for _ in range(4)]
    for thread in uploads:
        thread.start()
    deadline = time.monotonic() + 60
    # All of them: one that connects later would find the next server.
    while len(list(cache.glob("*/.part"))) < len(uploads):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    for thread in uploads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    for reader in readers:
        reader.join(timeout=60)
        assert reader.broken
    again = start(port=port, CONFORMANCE_CACHE_DIR=str(cache))
    for n in range(50):
        reader = Reader(again, f"session {n}")
        reader.join(timeout=60)
        [message] = reader.messages
        assert message["session_not_found"] and message["msg"] == "unexpected_error"
    assert [path.name for path in cache.glob("*/*")] == ["a.txt"]
    assert list(cache.glob("*/.part")) == []
    assert httpx.get(f"{again.address}/gradio_api/file={kept}").content == b"kept"
    assert join(again, [1])[0] == 200
    assert again.stop() == 0
