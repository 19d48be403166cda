"""What nginx's configuration promises: round robin, the next node where one refuses the connection, and no request
sent twice that may have been taken."""

import socket
import threading
import urllib.error
import urllib.request

import pytest
from harness import free_ports
from servers import Nginx


class Node(threading.Thread):
    """Answers with its port, or reads each request and hangs up."""

    def __init__(self, port, hangs_up=False):
        super().__init__(daemon=True)
        self.port, self.hangs_up = port, hangs_up
        self.asked = []
        self.socket = socket.create_server(("127.0.0.1", port))
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                request = connection.recv(1 << 16)
                while request.startswith(b"POST") and not request.endswith(b"{}"):
                    request += connection.recv(1 << 16)
                self.asked.append(request.split(b" ", 1)[0].decode())
                if not self.hangs_up:
                    body = str(self.port).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


@pytest.fixture
def front(tmp_path):
    """nginx before nodes of these kinds: well, hangs up, or away."""
    nodes, started = [], []

    def front(*kinds):
        port, *ports = free_ports(1 + len(kinds))
        nodes.extend(Node(at, kind == "hangs up") for at, kind in zip(ports, kinds) if kind != "away")
        nginx = Nginx(tmp_path, port, ports)
        started.append(nginx)
        nginx.start()
        return nginx.address, nodes

    yield front
    for nginx in started:
        nginx.stop()
    for node in nodes:
        node.socket.close()


def post(address):
    with urllib.request.urlopen(address, data=b"{}", timeout=10) as answer:
        return int(answer.read())


def test_round_robin_for_all_of_a_client_s_requests(front):
    address, nodes = front("well", "well", "well")
    answered = [post(address) for _ in range(6)]
    assert answered[:3] == answered[3:] and set(answered) == {node.port for node in nodes}


def test_a_node_that_is_away_is_passed_over(front):
    address, nodes = front("away", "well", "away")
    assert [post(address) for _ in range(6)] == [nodes[0].port] * 6


def test_a_request_that_was_sent_is_not_sent_again(front):
    address, nodes = front("hangs up", "hangs up", "hangs up")
    for _ in range(6):
        with pytest.raises(urllib.error.HTTPError, match="502"):
            post(address)
    assert [node.asked for node in nodes] == [["POST", "POST"]] * 3


def test_what_changes_nothing_is_asked_of_the_next_one(front):
    address, nodes = front("hangs up", "well")
    for _ in range(4):
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert int(answer.read()) == nodes[1].port
    assert len(nodes[0].asked) >= 1
