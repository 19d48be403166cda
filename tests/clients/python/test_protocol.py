"""The chapter on the protocol, docs/PROTOCOL.md: its commands print what it shows."""

import json
import re
import subprocess

import pytest
from conftest import CLUSTER, ROOT, URL

# Of messages: in a cluster they begin elsewhere.
NUMBERS_ARE_OTHERS = bool(CLUSTER or URL)

CHAPTER = (ROOT / "docs/PROTOCOL.md").read_text()
ADDRESS = "http://127.0.0.1:7861"
MARK = "the next command"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", CHAPTER, re.MULTILINE | re.DOTALL)


def commands(block):
    """Each command, and what it prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def without_ids_and_times(text):
    text = re.sub(r"[0-9a-f]{32}", "<id>", text)
    # An id that is cut off.
    text = re.sub(r'"event_id":"[0-9a-f]+$', '"event_id":"<id>', text, flags=re.MULTILINE)
    # In a cluster, messages are numbered from the moment on in which their session began.
    text = re.sub(r"^id: (\d{13,})$", lambda it: f"id: {int(it[1]) % 1024}", text, flags=re.MULTILINE)
    times = "rank_eta|eta|duration|average_duration|cache_duration|avg_time"
    # Those of errors are 10.0 seconds always, unlike those of runs.
    return re.sub(rf'"({times})":(null|(?!10\.0\b)[0-9.e-]+)', r'"\1":<seconds>', text)


@pytest.fixture(scope="module")
def printed(address, tmp_path_factory):
    """What all commands of the chapter print, run one after the other in one shell."""
    script = ""
    for block in blocks("console"):
        for command, _ in commands(block):
            script += command.replace(ADDRESS, address) + f"\nprintf '%s\\n' '{MARK}'\n"
    ran = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=tmp_path_factory.mktemp("protocol"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout.replace(address, ADDRESS).split(MARK + "\n")


def test_every_command_prints_what_is_shown(printed):
    shown = [command for block in blocks("console") for command in commands(block)]
    assert len(printed) == len(shown) + 1 > 30
    for (command, expected), output in zip(shown, printed):
        # The number that the chapter names is another one in a cluster.
        if "Last-Event-ID: " in command and NUMBERS_ARE_OTHERS:
            continue
        assert without_ids_and_times(output) == without_ids_and_times(expected), command


def keys(value):
    if isinstance(value, dict):
        return {key: keys(value) for key, value in value.items() if key != "data"}
    return [keys(item) for item in value[:1]] if isinstance(value, list) else None


def test_messages_have_the_fields_that_are_shown(address):
    def messages(session, fn_index, data):
        body = json.dumps({"session_hash": session, "fn_index": fn_index, "data": data})
        subprocess.run(
            ["curl", "-sf", f"{address}/gradio_api/queue/join", "-d", body],
            check=True,
            capture_output=True,
        )
        stream = f"{address}/gradio_api/queue/data?session_hash={session}"
        text = subprocess.run(["curl", "-sN", stream], check=True, capture_output=True, text=True)
        return [json.loads(line[6:]) for line in text.stdout.splitlines() if line]

    [block] = blocks("json")
    shown = [json.loads(line) for line in block.splitlines()]
    sent = messages("shown-1", 5, ["x"]) + messages("shown-2", 3, [3])
    assert {message["msg"] for message in shown} == {message["msg"] for message in sent}
    for message in sent:
        [like] = [like for like in shown if like["msg"] == message["msg"]]
        assert keys(like) == keys(message)
