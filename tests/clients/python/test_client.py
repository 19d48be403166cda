"""Gradio's own Python client against the conformance server."""

import time
from concurrent.futures import CancelledError
from pathlib import Path

import httpx
import pytest
from gradio_client import handle_file
from gradio_client.exceptions import AppError, AuthenticationError, ValidationError
from gradio_client.utils import QueueError, Status

TIMEOUT = 60


def until(condition, what):
    """Waits for a condition; a test that passes never waits for the deadline."""
    deadline = time.monotonic() + TIMEOUT
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.005)
    return found


def updates_of(job):
    """Every status update of a finished job, in order."""
    queue = job.communicator.updates
    updates = [queue.get_nowait() for _ in range(queue.qsize())]
    return [update for update in updates if update.type == "status"]


def test_connect_and_view_the_api(client):
    info = client.view_api(return_format="dict", print_info=False)
    named = info["named_endpoints"]
    assert {"/echo", "/count", "/repeat", "/quick"} <= set(named)
    assert not {"/hidden", "/secret"} & set(named)
    text, times, ending = named["/repeat"]["parameters"]
    assert (text["parameter_name"], text["parameter_has_default"]) == ("text", False)
    assert text["python_type"] == {"type": "str", "description": "What to say."}
    assert (times["parameter_default"], times["python_type"]["type"]) == (2, "int")
    assert (ending["parameter_default"], ending["parameter_has_default"]) == (None, True)
    assert named["/repeat"]["description"] == "Says it again."
    printed = client.view_api(return_format="str", print_info=False)
    assert "predict(text, times, ending, api_name=\"/repeat\") -> 1st" in printed


def test_arguments_by_place_by_name_and_left_out(client):
    assert client.predict("a", api_name="/repeat") == "aa"
    assert client.predict("a", 3, "!", api_name="/repeat") == "aaa!"
    assert client.predict(text="a", ending="?", api_name="/repeat") == "aa?"
    assert client.predict("a", times=1, api_name="/repeat") == "a"
    assert client.predict("a", fn_index=0) == "a"
    assert client.predict("a", 2.5, api_name="/swap") == (2.5, "a")
    assert client.predict(param_0="a", param_1=2.5, api_name="/swap") == (2.5, "a")
    assert client.predict(api_name="/nothing") == ()


def test_wrong_arguments_are_refused_in_the_client_s_words(client):
    with pytest.raises(TypeError, match="No value provided for required argument: text"):
        client.predict(api_name="/repeat")
    with pytest.raises(TypeError, match="not a valid key-word argument"):
        client.predict("a", size=3, api_name="/repeat")
    with pytest.raises(AppError, match="takes 1 inputs, and 2 were given"):
        client.predict("a", "b", api_name="/echo")
    with pytest.raises(AppError, match="times: invalid type"):
        client.predict("a", "often", api_name="/repeat")
    # Whoever goes through a job's values comes to the end.
    job = client.submit("a", "often", api_name="/repeat")
    assert list(job) == []
    with pytest.raises(AppError, match="times: invalid type"):
        job.result(timeout=TIMEOUT)
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict("a", api_name="/missing")


def test_an_input_is_validated_before_it_queues(client):
    with pytest.raises(ValidationError) as raised:
        client.predict("", 10, api_name="/checked")
    assert str(raised.value).splitlines() == [
        "2 parameter(s) failed validation:",
        "- text: Say something.",
        "- times: Not so often.",
    ]
    assert client.predict("a", api_name="/checked") == "aa"


def test_status_comes_in_order(client):
    job = client.submit(3, api_name="/count")
    assert list(job) == ["000", "111", "222"]
    assert job.result(timeout=TIMEOUT) == "222"
    codes = [update.code for update in updates_of(job)]
    assert codes == sorted(codes, key=Status.ordering)
    assert set(codes) == {Status.IN_QUEUE, Status.PROCESSING, Status.ITERATING, Status.FINISHED}
    assert job.status().code == Status.FINISHED


def test_those_who_wait_are_told_their_rank_and_eta(client):
    # Each has run once, so that there is a time to go by.
    for n in range(3):
        client.predict("a", api_name=f"/gen{1 + n}")
    jobs = [client.submit("a", api_name=f"/gen{1 + n % 3}") for n in range(6)]
    assert [job.result(timeout=TIMEOUT)[:4] for job in jobs] == [f"gen{1 + n % 3}" for n in range(6)]
    waited = [u for job in jobs for u in updates_of(job) if u.code == Status.IN_QUEUE]
    assert max(update.rank for update in waited) >= 1
    assert all(update.eta is not None and update.queue_size > update.rank for update in waited)


def test_a_stream_s_outputs_are_what_the_handler_yielded(client):
    job = client.submit(40, api_name="/chat")
    last = job.result(timeout=TIMEOUT)
    text = ""
    expected = []
    for n in range(40):
        text += f"word{n} "
        expected.append([
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": text},
        ])
    assert job.outputs() == expected
    assert last == expected[-1]


def test_progress_and_log_messages(client):
    job = client.submit("a", api_name="/prog")
    assert job.result(timeout=TIMEOUT) == "a"
    updates = updates_of(job)
    progress = [update.progress_data[0] for update in updates if update.progress_data]
    assert progress[-1].desc == "step 2" and progress[-1].progress == 1.0
    assert progress[0].unit == "steps"
    assert ("done it", "info") in [update.log for update in updates]


def test_errors(client):
    with pytest.raises(AppError, match="no good") as raised:
        client.predict("a", api_name="/fail")
    assert raised.value.title == "Error"
    # Not meant for the user, so not sent.
    with pytest.raises(AppError) as raised:
        client.predict("a", api_name="/boom")
    assert "secret of the server" not in str(raised.value) and "show_error" in str(raised.value)
    assert client.predict("still here", api_name="/echo") == "still here"


def test_a_full_queue(client):
    running = client.submit(60_000, api_name="/narrow")
    until(lambda: running.status().code == Status.PROCESSING, "the first to run")
    waiting = client.submit(1, api_name="/narrow")
    until(lambda: waiting.status().code == Status.IN_QUEUE, "the second to wait")
    with pytest.raises(QueueError):
        client.predict(1, api_name="/narrow")
    waiting.cancel()
    running.cancel()
    assert client.submit(1, api_name="/narrow").result(timeout=TIMEOUT) == 1


def test_cancel_while_waiting_and_while_running(client):
    running = client.submit(60_000, api_name="/narrow")
    until(lambda: running.status().code == Status.PROCESSING, "the first to run")
    waiting = client.submit(60_000, api_name="/narrow")
    until(lambda: waiting.status().code == Status.IN_QUEUE, "the second to wait")
    for job in (waiting, running):
        assert job.cancel()
        assert job.status().code == Status.CANCELLED
        with pytest.raises((CancelledError, AppError)):
            job.result(timeout=TIMEOUT)
    # The slot has come back.
    assert client.predict(1, api_name="/narrow") == 1


def test_cancel_while_iterating_and_again_from_the_start(client):
    job = client.submit(1_000, api_name="/count")
    until(lambda: len(job.outputs()) >= 3, "the third item")
    job.cancel()
    with pytest.raises((CancelledError, AppError)):
        job.result(timeout=TIMEOUT)
    again = client.submit(3, api_name="/count")
    again.result(timeout=TIMEOUT)
    assert again.outputs() == ["000", "111", "222"]


def test_six_jobs_through_two_workers(connect):
    client = connect(max_workers=2)
    jobs = [client.submit(str(n), api_name="/echo1") for n in range(6)]
    assert [job.result(timeout=TIMEOUT) for job in jobs] == [str(n) for n in range(6)]


def test_two_sessions_don_t_mix(connect):
    mine, theirs = connect(), connect()
    jobs = [(client, n, client.submit(n, api_name="/count")) for n in (2, 3, 4) for client in (mine, theirs)]
    for _, n, job in jobs:
        job.result(timeout=TIMEOUT)
        assert job.outputs() == [str(i) * 3 for i in range(n)]
    assert mine.session_hash != theirs.session_hash


def test_the_stream_closes_after_the_last_event_and_opens_again(client):
    for _ in range(3):
        jobs = [client.submit(str(n), api_name="/echo") for n in range(5)]
        assert [job.result(timeout=TIMEOUT) for job in jobs] == [str(n) for n in range(5)]
        until(lambda: not client.stream_open, "the stream to close")


def test_listeners_that_don_t_queue(client):
    assert client.predict("a", api_name="/quick") == "a"
    with pytest.raises(AppError, match="no good"):
        client.predict("a", api_name="/quick_fail")


def test_visibility(client):
    assert client.predict("a", api_name="/hidden") == "a"
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict("a", api_name="/secret")


def test_state_is_kept_in_a_session_and_reset_with_it(client, connect):
    assert client.predict("a", api_name="/remember") == ["a"]
    assert client.predict("b", api_name="/remember") == ["a", "b"]
    assert connect().predict("c", api_name="/remember") == ["c"]
    client.reset_session()
    assert client.predict("d", api_name="/remember") == ["d"]


def test_kept_results(client):
    first, other = (client.predict(x, api_name="/cached") for x in "ab")
    assert first != other
    assert client.predict("a", api_name="/cached") == first


def test_below_a_path(connect):
    client = connect("/app")
    assert client.predict("a", api_name="/echo") == "a"
    assert client.config["root"].endswith("/app")


@pytest.mark.parametrize(
    "text",
    [
        "quotes \" ' \\ and\nnewlines\r\n\ttabs",
        "next line \u0085, line separator \u2028, paragraph separator \u2029",
        "🦊 emoji, 日本語, a\u0301ccents and \u0000 null",
        "<b>&amp;</b> data: event: \n\n data: {}",
        "🦊x" * (1 << 18),
        "\ta\nb" * 90_000,
    ],
    ids=["quotes", "separators", "unicode", "markup", "1 MiB", "90,000 lines"],
)
def test_text_survives_both_ways(client, text):
    assert client.predict(text, api_name="/echo") == text


def test_a_file_goes_in_and_another_comes_out(client, tmp_path):
    text = tmp_path / "my report.txt"
    text.write_text("fox")
    path = client.predict(handle_file(text), api_name="/shout")
    assert Path(path).read_text() == "FOX"
    assert Path(path).name == "my report.txt"
    # What came out may go in again.
    assert Path(client.predict(file=handle_file(path), api_name="/shout")).read_text() == "FOX"


def test_files_anywhere_in_inputs_and_outputs(client, tmp_path):
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.bin").write_bytes(b"\0" * 5000)
    files = [handle_file(tmp_path / name) for name in ("a.txt", "b.bin")]
    descriptions, paths = client.predict(files, api_name="/list")
    assert descriptions == ["a.txt: 1", "b.bin: 5000"]
    assert [Path(path).read_bytes() for path in paths] == [b"a", b"\0" * 5000]


def test_a_stream_of_files(client):
    job = client.submit(3, api_name="/pages")
    job.result(timeout=TIMEOUT)
    assert [Path(path).read_text() for path in job.outputs()] == ["0", "1", "2"]


def test_a_file_that_is_too_large_or_not_there(client, tmp_path):
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (1024 * 1024 + 1))
    with pytest.raises(ValueError, match="exceeds the maximum file size of 1048576 bytes"):
        client.predict(handle_file(large), api_name="/shout")
    # The client looks first; the server does too.
    with large.open("rb") as file:
        answer = httpx.post(client.upload_url, files=[("files", ("large.txt", file))])
    assert answer.status_code == 413
    assert "maximum allowed size of 1048576 bytes" in answer.json()["detail"]
    with pytest.raises(AppError, match="file: there is no such file here"):
        client.predict({"path": "/etc/passwd", "meta": {"_type": "other"}}, api_name="/shout")


def test_login(connect, tmp_path):
    with pytest.raises(AuthenticationError, match="credentials were not provided"):
        connect("/private")
    with pytest.raises(AuthenticationError, match="Invalid credentials"):
        connect("/private", auth=("alice", "open"))
    client = connect("/private", auth=("alice", "open sesame"))
    assert client.predict(api_name="/whoami") == "alice"
    assert client.config["username"] == "alice"
    text = tmp_path / "a.txt"
    text.write_text("fox")
    assert Path(client.predict(handle_file(text), api_name="/shout")).read_text() == "FOX"
    # This client ends a job whose join is refused with the status.
    with pytest.raises(httpx.HTTPStatusError, match="403 Forbidden"):
        client.predict("a", api_name="/for_bob")
    with pytest.raises(httpx.HTTPStatusError, match="403 Forbidden"):
        client.predict("a", api_name="/for_bob_at_once")
    client.predict("a", api_name="/remember")
    other = connect("/private", auth=("alice", "open sesame"))
    assert other.predict("b", api_name="/remember") == ["b"]
    assert client.predict("c", api_name="/remember") == ["a", "c"]
