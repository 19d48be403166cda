"""Three NATS servers, three nodes, and nginx before them, as processes of this machine that can be broken."""

import os
import sys
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples/cluster"))

from books import Books  # noqa: E402
from servers import NatsServers, Nginx, Process, free_ports, until  # noqa: E402

PROXY = Path(__file__).with_name("proxy.py")

# What the programs are built into.
PROGRAMS = Path(os.environ.get("CLUSTER_PROGRAMS", ROOT / "target/release/examples"))

# Set where nodes don't share the work yet: one serves, the others stand by. For what surrounds the cluster.
STANDS_BY = "CLUSTER_STANDS_BY" in os.environ

# The limits of the node's queues.
LIMITS = {"work": 4, "gpu_queue": 2}

# The node whose way to NATS can be cut.
BEHIND_PROXY = "c"

# How long it stays broken what is frozen or cut: longer than a lease, and than the engine's longest election.
LONG = 15


class Cluster:
    def __init__(self, directory, program="cluster_node", names="abc"):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.books = Books(self.directory / "books.jsonl")
        self.nats = NatsServers(self.directory / "nats")
        front, *ports = free_ports(1 + len(names) + len(self.nats.ports))
        ports, ways = ports[: len(names)], ports[len(names) :]
        pairs = [f"{way}:{port}" for way, port in zip(ways, self.nats.ports)]
        command = [sys.executable, PROXY, *pairs]
        self.proxy = Process("proxy", command, self.directory / "proxy.log", ways[-1])
        behind = ",".join(f"nats://127.0.0.1:{way}" for way in ways)
        self.nodes = {}
        for name, port in zip(names, ports):
            urls = behind if name == BEHIND_PROXY else self.nats.urls
            command = [PROGRAMS / program, "--nats", urls, "--name", "test", "--node", name, "--port", port]
            if program == "cluster_node":
                command += ["--books", self.books.path]
            self.nodes[name] = Process(f"node {name}", command, self.directory / f"{name}.log", port)
        self.nginx = Nginx(self.directory / "nginx", front, ports)
        # What is broken, or being mended, by name: nobody else touches it.
        self.broken = set()
        self.lock = threading.Lock()

    @property
    def address(self):
        return self.nginx.address

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_):
        self.end()

    def start(self):
        self.nats.start()
        self.proxy.start()
        self.proxy.wait_until_it_listens()
        for node in self.nodes.values():
            node.start()
        self.nginx.start()
        self.wait_until_ready()

    def wait_until_ready(self):
        """Every node listens, or where they stand by, one of them."""
        if not STANDS_BY:
            for node in self.nodes.values():
                node.wait_until_it_listens()
        until(self.answers, "the cluster to answer")

    def answers(self):
        if STANDS_BY:
            self.revive()
        try:
            with urllib.request.urlopen(f"{self.address}/config", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def end(self):
        """At once: what matters is in the books."""
        # It has a child, which its death wouldn't end.
        self.nginx.stop()
        for process in [*self.nodes.values(), self.proxy, *self.nats.servers]:
            process.kill()

    # Faults of nodes. Each is in the books: before it can have an effect that others see, or once it surely has one.

    def kill(self, node):
        node.kill()
        self.note("killed", node)

    def restart(self, node):
        node.start()
        if not STANDS_BY:
            node.wait_until_it_listens()

    def take_back(self):
        """Clients are sent to all nodes again."""
        self.nginx.serve_by([node.port for node in self.nodes.values()])

    def freeze(self, node):
        node.freeze()
        self.note("frozen", node)

    def wake(self, node):
        self.note("waking", node)
        node.wake()

    def stop(self, node):
        """In order: nobody is sent there any more, as where Kubernetes ends a pod. Connections that the system has
        accepted and the process hasn't are reset when it ends. Gives the exit code."""
        self.nginx.serve_by([other.port for other in self.nodes.values() if other is not node])
        self.note("stopping", node)
        code = node.stop()
        self.note("exited", node)
        return code

    def note(self, what, node):
        self.books.note(what, node=node.name.removeprefix("node "), pid=node.pid)

    def revive(self):
        """Starts again what has ended by itself, which nodes do where they stand by. Gives their names."""
        dead = []
        with self.lock:
            for name, node in self.nodes.items():
                if node.name not in self.broken and not node.is_alive:
                    dead.append(name)
                    self.note("exited", node)
                    node.start()
        return dead

    # Of the way to NATS.

    def cut(self):
        self.books.note("cut", node=BEHIND_PROXY)
        self.proxy.freeze()

    def mend(self):
        self.proxy.wake()
        self.books.note("mended", node=BEHIND_PROXY)

    def break_connections(self):
        self.books.note("cut", node=BEHIND_PROXY)
        self.proxy.kill()

    def reconnect(self):
        self.proxy.start()
        self.proxy.wait_until_it_listens()
        self.books.note("mended", node=BEHIND_PROXY)


class Faults(threading.Thread):
    """Breaks things at random, by a seed, until `mending` is set; then mends all, and looks on until it is stopped.

    Each kind in turn, in an order drawn anew each time, so that a short run has all of them. At most two nodes are
    broken at a time, and one server, and no server before all have caught up.
    """

    def __init__(self, cluster, random):
        super().__init__(daemon=True)
        self.cluster, self.random = cluster, random
        self.mending, self.over = threading.Event(), threading.Event()
        self.injected, self.errors = [], []
        # Nodes that have ended by themselves.
        self.exited = []

    def stop(self):
        self.mending.set()
        self.over.set()
        self.join()

    def run(self):
        nodes, servers = self.a_node, self.a_server
        kinds = [
            (nodes, self.kill),
            (nodes, self.freeze),
            (self.the_node_behind_the_proxy, self.cut),
            (self.the_node_behind_the_proxy, self.disconnect),
            (servers, self.kill_server),
            (servers, self.freeze_server),
        ]
        deck, under_way, due = [], [], time.monotonic()
        while not self.mending.wait(0.1):
            self.exited += self.cluster.revive()
            if time.monotonic() < due:
                continue
            deck = deck or self.random.sample(kinds, len(kinds))
            # The first that can be now.
            for kind in deck:
                take, inject = kind
                if part := take():
                    deck.remove(kind)
                    seconds = self.random.uniform(0.5, 3)
                    fault = threading.Thread(target=self.inject, args=(inject, part, seconds), daemon=True)
                    fault.start()
                    under_way.append(fault)
                    due = time.monotonic() + self.random.uniform(1, 6)
                    break
        for fault in under_way:
            fault.join()
        try:
            until(self.cluster.nats.are_well, "the NATS servers to be well in the end")
            self.cluster.wait_until_ready()
        except Exception as error:
            self.errors.append(error)
        while not self.over.wait(0.1):
            self.exited += self.cluster.revive()

    def inject(self, inject, part, seconds):
        self.injected.append(f"{inject.__name__} {part.name}")
        try:
            inject(part, seconds)
        except Exception as error:
            self.errors.append(error)
        finally:
            with self.cluster.lock:
                self.cluster.broken.discard(part.name)

    # What may be broken now.

    def take(self, parts, at_once):
        with self.cluster.lock:
            whole = [part for part in parts if part.name not in self.cluster.broken]
            if not whole or len(parts) - len(whole) >= at_once:
                return None
            part = self.random.choice(whole)
            self.cluster.broken.add(part.name)
            return part

    def a_node(self):
        return self.take(list(self.cluster.nodes.values()), 2)

    def the_node_behind_the_proxy(self):
        names = {node.name for node in self.cluster.nodes.values()}
        if len(names & self.cluster.broken) >= 2:
            return None
        return self.take([self.cluster.nodes[BEHIND_PROXY]], 1)

    def a_server(self):
        return self.take(self.cluster.nats.servers, 1) if self.cluster.nats.are_well() else None

    # How, and for how long.

    def kill(self, node, seconds):
        self.cluster.kill(node)
        self.mending.wait(seconds)
        self.cluster.restart(node)

    def freeze(self, node, _):
        self.cluster.freeze(node)
        self.mending.wait(LONG)
        self.cluster.wake(node)

    def cut(self, _, __):
        self.cluster.cut()
        self.mending.wait(LONG)
        self.cluster.mend()

    def disconnect(self, _, seconds):
        self.cluster.break_connections()
        self.mending.wait(seconds)
        self.cluster.reconnect()

    def kill_server(self, server, seconds):
        self.cluster.books.note("down", server=server.name)
        server.kill()
        self.mending.wait(seconds)
        server.start()
        self.catches_up(server)

    def freeze_server(self, server, _):
        self.cluster.books.note("down", server=server.name)
        server.freeze()
        self.mending.wait(LONG)
        server.wake()
        self.catches_up(server)

    def catches_up(self, server):
        until(self.cluster.nats.are_well, f"{server.name} to catch up")
        self.cluster.books.note("up", server=server.name)
