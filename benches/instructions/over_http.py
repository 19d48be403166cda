"""Counts the instructions that a server takes for an event over HTTP: a join and its stream, by the
clients of `examples/load`, from `conformance` and from the peers of `benches/versus`."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = "bare actix-web", "tower + axum"
CLIENTS = 50
# By each client. The same clients connect in both runs, and the servers start and stop alike.
FEW, MANY = 20, 60


def build():
    """The commands of the servers, which take a port as their last argument, and the clients'."""
    examples = ["--example", "conformance", "--example", "load"]
    subprocess.run(["cargo", "build", "--locked", "--quiet", "--release", *examples], cwd=ROOT, check=True)
    manifest, target = ROOT / "benches/versus/peers/Cargo.toml", ROOT / "target/versus"
    peers = ["--manifest-path", str(manifest), "--target-dir", str(target)]
    subprocess.run(["cargo", "build", "--locked", "--quiet", "--release", *peers], cwd=ROOT, check=True)
    built = ROOT / "target/release/examples"
    bare, tower = PEERS
    servers = {
        "now-serving": [built / "conformance", "--port"],
        bare: [target / "release/bare"],
        tower: [target / "release/towers"],
    }
    return servers, built / "load"


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(port, server):
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/config", timeout=60).read()
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            if server.poll() is not None:
                break
            time.sleep(0.05)
    raise SystemExit(f"{server.args} does not start")


def instructions(command, load, events):
    port = free_port()
    callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={os.devnull}"]
    server = subprocess.Popen([*callgrind, *command, str(port)], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, env={**os.environ, "RUST_LOG": "error"})
    try:
        wait_for(port, server)
        clients = [load, "--host", f"127.0.0.1:{port}", "--clients", str(CLIENTS), "--events", str(events),
                   "--json"]
        report = json.loads(subprocess.run(clients, capture_output=True, text=True, check=True).stdout)
        if (report["events"], report["errors"]) != (CLIENTS * events, 0):
            raise SystemExit(f"{command}: {report}")
        server.send_signal(signal.SIGTERM)
        printed = server.communicate()[1]
    finally:
        server.kill()
    return int(re.search(r"Collected : (\d+)", printed)[1])


def an_event(command, load):
    few, many = (instructions(command, load, events) for events in (FEW, MANY))
    return round((many - few) / (CLIENTS * (MANY - FEW)))


def count():
    """What an event takes, by server."""
    servers, load = build()
    return {name: an_event(command, load) for name, command in servers.items()}
