"""The conformance server, and a client of it. Run by tests/run."""

import os
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest
from gradio_client import Client

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get("CONFORMANCE_BIN", ROOT / "target/release/examples/conformance")

# Of a server, or a cluster, that runs already; then tests that start servers of their own are left out.
URL = os.environ.get("CONFORMANCE_URL")

# The URL of a NATS server: the journals are there then.
NATS = os.environ.get("CONFORMANCE_NATS")
# The same: each server is the one node of a cluster of its own.
CLUSTER = os.environ.get("CONFORMANCE_CLUSTER")
DURABLE = bool(NATS or CLUSTER) or "CONFORMANCE_DURABLE" in os.environ


class Server:
    """A conformance server of its own."""

    def __init__(self, port=0, **environment):
        # The suites pass with durable listeners as well, each server with a journal of its own. What is in a
        # directory of files that a test gives is that test's.
        journal = []
        if "CONFORMANCE_CACHE_DIR" not in environment:
            if CLUSTER:
                journal = ["--nats", CLUSTER, "--node", "one", "--name", str(uuid.uuid4())]
            elif NATS:
                journal = ["--journal", f"{NATS}/{uuid.uuid4()}"]
            elif DURABLE:
                journal = ["--journal", str(Path(tempfile.mkdtemp()) / "events.db")]
        # Port 0 is any free one; the server says which.
        self.process = subprocess.Popen(
            [PROGRAM, "--port", str(port), *journal],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        line = self.process.stdout.readline()
        assert "http://" in line, f"the server said {line!r}"
        self.address = line[line.index("http://") :].strip()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(timeout=60)


@pytest.fixture
def start():
    if URL:
        pytest.skip("it starts a server of its own")
    servers = []

    def start(**options):
        servers.append(Server(**options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def address():
    if URL:
        yield URL
        return
    server = Server()
    yield server.address
    assert server.stop() == 0


@pytest.fixture
def connect(address):
    clients = []

    def connect(path="", **options):
        client = Client(address + path, verbose=False, analytics_enabled=False, **options)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(connect):
    return connect()
