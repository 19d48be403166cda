"""A cluster for each test, whose books and logs stay in target/cluster-tests."""

import shutil
import signal
import sys

import pytest
from harness import ROOT, Cluster


def pytest_configure():
    # What a test has started is ended by it, also when it is told to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


@pytest.fixture
def start(request):
    """Starts a cluster of a program's."""
    directory = ROOT / "target/cluster-tests" / request.node.name
    shutil.rmtree(directory, ignore_errors=True)
    clusters = []

    def start(**options):
        cluster = Cluster(directory, **options)
        clusters.append(cluster)
        cluster.__enter__()
        return cluster

    yield start
    for cluster in clusters:
        cluster.end()


@pytest.fixture
def say(capsys):
    """Prints what a test has measured, also when it passes."""

    def say(text):
        with capsys.disabled():
            print(f"\n   {text}", end="", flush=True)

    return say
