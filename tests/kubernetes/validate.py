"""Checks the examples for Kubernetes against its own schemas, and those for KEDA against its CRDs'."""

import re
import sys
from pathlib import Path

import kubernetes_validate
import yaml
from cloudcoil.models.keda import v1alpha1 as keda

ROOT = Path(__file__).resolve().parents[2]
METRICS = (ROOT / "src/web/operator/metrics.rs").read_text()


def check_keda(document, deployments):
    """What the CRD doesn't know is lost on the way through its model."""
    model = getattr(keda, document["kind"]).model_validate(document)
    kept = model.model_dump(by_alias=True, exclude_unset=True, mode="json")
    differs(document, kept, document["kind"])
    spec = document["spec"]
    assert spec["scaleTargetRef"]["name"] in deployments, "it scales a Deployment that isn't there"
    assert 0 < spec["minReplicaCount"] < spec["maxReplicaCount"]
    for trigger in spec["triggers"]:
        float(trigger["metadata"]["threshold"])
        names = re.findall(r"\bnow_serving_(\w+)", trigger["metadata"]["query"])
        assert names, "it asks for none of our metrics"
        for name in names:
            assert f'"{name}"' in METRICS, f"no metric is named now_serving_{name}"


def differs(ours, kept, path):
    """Fails at the first place where the two do."""
    if isinstance(ours, dict):
        for key, value in ours.items():
            assert key in kept, f"{path}.{key} is unknown"
            differs(value, kept[key], f"{path}.{key}")
    elif isinstance(ours, list):
        for n, (value, other) in enumerate(zip(ours, kept, strict=True)):
            differs(value, other, f"{path}[{n}]")
    else:
        assert ours == kept, f"{path} is {ours!r}, and is taken as {kept!r}"


checked = 0
paths = sorted((ROOT / "examples/kubernetes").glob("*.yaml"))
documents = [(path, document) for path in paths for document in yaml.safe_load_all(path.read_text())]
deployments = {document["metadata"]["name"] for _, document in documents if document["kind"] == "Deployment"}
for path, document in documents:
    try:
        if document["apiVersion"].startswith("keda.sh/"):
            check_keda(document, deployments)
        else:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    except Exception as error:
        sys.exit(f"{path.relative_to(ROOT)}, {document['kind']}: {error}")
    checked += 1
if checked < 3:
    sys.exit("examples/kubernetes: nothing has been checked")
print(f"{checked} objects fit the schemas of Kubernetes {kubernetes_validate.latest_version()} and KEDA")
