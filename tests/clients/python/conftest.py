"""The conformance server, and a client of it. Run by tests/run."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from gradio_client import Client

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = os.environ.get("CONFORMANCE_BIN", ROOT / "target/release/examples/conformance")


@pytest.fixture(scope="session")
def address():
    # Port 0 is any free one; the server says which.
    server = subprocess.Popen([PROGRAM, "--port", "0"], stdout=subprocess.PIPE, text=True)
    line = server.stdout.readline()
    assert "http://" in line, f"the server said {line!r}"
    yield line[line.index("http://") :].strip()
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=30) == 0


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
