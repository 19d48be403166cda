"""Gradio's own clients, in Python and JavaScript, through nginx at three nodes of the conformance server: the suites
that a single server passes, tests/clients."""

import os
import subprocess
import sys

from harness import ROOT


def passes(cluster, command):
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CONFORMANCE_URL": cluster.address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def test_the_python_client(start, say):
    cluster = start(program="conformance")
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/clients/python"]
    say(passes(cluster, suite).splitlines()[-1])


def test_the_javascript_client(start, say):
    cluster = start(program="conformance")
    # The client leaves streams open, which end with a server of its own only.
    suite = ["node", "--test", "--test-force-exit", "--test-reporter=tap", "tests/clients/js/"]
    said = passes(cluster, suite).splitlines()
    say(", ".join(line.removeprefix("# ") for line in said if line.startswith(("# pass", "# fail", "# skipped"))))
