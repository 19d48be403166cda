"""curl against the conformance server, in the words of Gradio's guide on it.

The guide's lines stand here with the address and the listener's name replaced, and nothing else.
"""

import json
import re
import subprocess

import pytest


def shell(script, cwd):
    # So that a `read` at the end of a pipe sets its variable here, as it does in zsh.
    script = f"set -e -o pipefail; shopt -s lastpipe; {script}"
    ran = subprocess.run(["bash", "-c", script], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def events(text):
    """The names and data of a stream's events."""
    return [(name, json.loads(data)) for name, data in re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)]


def test_two_requests(address, tmp_path):
    answer = shell(
        f"""curl -X POST {address}/gradio_api/call/echo -H "Content-Type: application/json" -d '{{
  "data": ["Hello, my friend."] 
}}'""",
        tmp_path,
    )
    event_id = json.loads(answer)["event_id"]
    stream = shell(f"curl -N {address}/gradio_api/call/echo/{event_id}", tmp_path)
    assert stream == 'event: complete\ndata: ["Hello, my friend."]\n\n'


def test_both_in_one(address, tmp_path):
    stream = shell(
        f"""curl -X POST {address}/gradio_api/call/echo -H "Content-Type: application/json" -d '{{
  "data": ["Hello, my friend."] 
}}' \\
  | awk -F'"' '{{ print $4}}'  \\
  | read EVENT_ID; curl -N {address}/gradio_api/call/echo/$EVENT_ID""",
        tmp_path,
    )
    assert events(stream) == [("complete", ["Hello, my friend."])]


def test_a_stream_of_values(address, tmp_path):
    stream = shell(
        f"""curl -X POST {address}/gradio_api/call/count -H "Content-Type: application/json" -d '{{
  "data": [3] 
}}' \\
  | awk -F'"' '{{ print $4}}'  \\
  | read EVENT_ID; curl -N {address}/gradio_api/call/count/$EVENT_ID""",
        tmp_path,
    )
    assert events(stream) == [
        ("generating", ["000"]),
        ("generating", ["111"]),
        ("generating", ["222"]),
        ("complete", ["222"]),
    ]


def test_an_error(address, tmp_path):
    stream = shell(
        f"""curl -X POST {address}/gradio_api/call/fail -H "Content-Type: application/json" -d '{{
  "data": ["a"] 
}}' \\
  | awk -F'"' '{{ print $4}}'  \\
  | read EVENT_ID; curl -N {address}/gradio_api/call/fail/$EVENT_ID""",
        tmp_path,
    )
    [(name, error)] = events(stream)
    assert (name, error["error"], error["title"]) == ("error", "no good", "Error")


def test_a_file(address, tmp_path):
    (tmp_path / "fox.txt").write_text("fox")
    answer = shell(f'curl -X POST {address}/gradio_api/upload -F "files=@fox.txt"', tmp_path)
    [path] = json.loads(answer)
    stream = shell(
        f"""curl -X POST {address}/gradio_api/call/shout -H "Content-Type: application/json" -d '{{
  "data": [{{"path": "{path}", "meta": {{"_type": "gradio.FileData"}}}}] 
}}' \\
  | awk -F'"' '{{ print $4}}'  \\
  | read EVENT_ID; curl -N {address}/gradio_api/call/shout/$EVENT_ID""",
        tmp_path,
    )
    [(name, [file])] = events(stream)
    assert name == "complete"
    assert shell(f"curl -s '{file['url']}'", tmp_path) == "FOX"


def test_a_login(address, tmp_path):
    app = f"{address}/private"
    answer = shell(
        f'curl -X POST {app}/login -H "Content-Type: application/x-www-form-urlencoded" '
        '-d "username=alice&password=open sesame" -c cookies.txt',
        tmp_path,
    )
    assert json.loads(answer) == {"success": True}
    stream = shell(
        f"""curl -X POST {app}/gradio_api/call/whoami -b cookies.txt -H "Content-Type: application/json" -d '{{
  "data": [] 
}}' \\
  | awk -F'"' '{{ print $4}}'  \\
  | read EVENT_ID; curl -N {app}/gradio_api/call/whoami/$EVENT_ID -b cookies.txt""",
        tmp_path,
    )
    assert events(stream) == [("complete", ["alice"])]


@pytest.mark.parametrize("name", ["echo", "repeat", "swap", "list"])
def test_the_snippet_that_info_gives(address, tmp_path, name):
    info = json.loads(shell(f"curl -s {address}/gradio_api/info", tmp_path))
    snippet = info["named_endpoints"][f"/{name}"]["code_snippets"]["bash"]
    assert events(shell(snippet, tmp_path))[0][0] == "complete"
