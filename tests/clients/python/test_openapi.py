"""Schemathesis over our own openapi.json: requests that fit its schemas, and requests that don't."""

import subprocess
import sys
from pathlib import Path


def test_no_request_that_the_document_describes_breaks_the_server(start, tmp_path):
    server = start(RUST_LOG="off")
    ran = subprocess.run(
        [
            Path(sys.executable).with_name("st"),
            "run",
            f"{server.address}/gradio_api/openapi.json",
            "--url",
            server.address,
            "--checks",
            "not_a_server_error,content_type_conformance,status_code_conformance",
            # Its line is full with one event, which is a 503 as it should be.
            "--exclude-path-regex",
            "narrow",
            "--max-examples",
            "8",
            "--generation-deterministic",
            "--no-color",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert server.stop() == 0
