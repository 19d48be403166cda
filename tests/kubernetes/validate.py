"""Checks the examples for Kubernetes against its own schemas."""

import sys
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[2]

checked = 0
for path in sorted((ROOT / "examples/kubernetes").glob("*.yaml")):
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        checked += 1
if checked < 2:
    sys.exit("examples/kubernetes: nothing has been checked")
print(f"{checked} objects fit the schemas of Kubernetes {kubernetes_validate.latest_version()}")
