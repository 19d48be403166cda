"""The audit finds each kind of violation in books made by hand, and none in books that are right."""

import pytest
from books import AFTERMATH, NOTICE, SECOND, Books, audit

LIMITS = {"work": 2, "gpu_queue": 1}


class Made:
    """Books, entry by entry; a millisecond passes with each."""

    def __init__(self):
        self.entries, self.at = [], 1_000 * SECOND

    def note(self, what, **more):
        self.at += SECOND // 1000
        self.entries.append({"what": what, "at": self.at, **more})
        return self

    def passes(self, seconds):
        self.at += int(seconds * SECOND)
        return self

    def accepted(self, *events):
        for event in events:
            self.note("sent", tag=f"tag {event}").note("accepted", tag=f"tag {event}", event=event)
        return self

    def run(self, what, event, attempt=1, node="a", pid=1, queue="work", tag=None):
        tag = tag or f"tag {event}"
        return self.note(what, event=event, attempt=attempt, queue=queue, tag=tag, node=node, pid=pid)

    def begin(self, event, **more):
        return self.run("begin", event, **more)

    def done(self, event, **more):
        return self.run("done", event, **more)

    def interrupted(self, event, **more):
        return self.run("interrupted", event, **more)

    def ended(self, event, attempt=1, pid=1):
        return self.note("ended", event=event, end={"attempt": attempt, "pid": pid})

    def audit(self):
        return audit(self.entries, LIMITS)

    def violations(self):
        return self.audit().violations


@pytest.fixture
def books():
    return Made()


def test_books_that_are_right(books):
    books.accepted("1", "2", "3").begin("1").begin("2", node="b", pid=2).done("1").begin("3", node="c", pid=3)
    books.ended("1").done("2", node="b", pid=2).done("3", node="c", pid=3)
    books.ended("3", pid=3).ended("2", pid=2)
    # Its stream was read twice, and it was fetched: the same end.
    books.ended("2", pid=2)
    found = books.audit()
    assert found.violations == []
    assert found.most == {"work": 2}
    assert (found.counts["begin"], found.counts["accepted"], found.counts["ended"]) == (3, 3, 4)


def test_an_event_without_an_end(books):
    books.accepted("1", "2").begin("1").done("1").ended("1")
    assert books.violations() == ["2 was accepted, and its client never got an end"]


def test_two_ends(books):
    books.accepted("1").begin("1").note("killed", node="a", pid=1)
    books.begin("1", attempt=2, pid=2).done("1", attempt=2, pid=2)
    books.ended("1", attempt=2, pid=2).ended("1", attempt=1, pid=1)
    two, nobody = books.violations()
    assert "two ends" in two and "no run gave" in nobody


def test_an_end_that_no_run_gave(books):
    books.accepted("1").begin("1").ended("1").done("1")
    [violation] = books.violations()
    assert "no run gave" in violation


def test_an_end_of_another_process(books):
    books.accepted("1").begin("1").done("1").ended("1", pid=7)
    [violation] = books.violations()
    assert "no run gave" in violation


def test_an_error(books):
    books.accepted("1").begin("1").done("1").note("ended", event="1", end={"error": "Queue is stopped."})
    assert books.violations() == ["1 ended with an error: Queue is stopped."]


def test_an_end_of_an_event_that_was_never_accepted(books):
    books.note("sent", tag="tag 1").begin("1").done("1").ended("1")
    assert books.violations() == ["1 ended, and was never accepted"]


def test_more_than_the_limit(books):
    books.accepted("1", "2", "3").begin("1").begin("2", node="b", pid=2).begin("3", node="c", pid=3)
    books.done("1").done("2", node="b", pid=2).done("3", node="c", pid=3).ended("1").ended("2", pid=2).ended("3", pid=3)
    [violation] = books.violations()
    assert violation.startswith("3 run at once in work, whose limit is 2: ")
    assert "attempt 1 of 3 on node c" in violation


def test_each_queue_has_a_limit_of_its_own(books):
    books.accepted("1", "2", "3").begin("1").begin("2").begin("3", queue="gpu_queue")
    books.done("1").done("2").done("3", queue="gpu_queue").ended("1").ended("2").ended("3")
    assert books.violations() == []


def test_runs_of_a_killed_process_are_over(books):
    books.accepted("1", "2").begin("1").begin("2").note("killed", node="a", pid=1)
    for event in "12":
        books.begin(event, attempt=2, node="b", pid=2)
    for event in "12":
        books.done(event, attempt=2, node="b", pid=2).ended(event, attempt=2, pid=2)
    found = books.audit()
    assert found.violations == []
    assert found.counts["starts after a fault of the run's node"] == 2


def frozen(books):
    """One that ran on a node that is frozen, and runs on another one now; the first has just woken."""
    books.accepted("1", "2", "3").begin("1").note("frozen", node="a", pid=1).passes(15)
    books.begin("1", attempt=2, node="b", pid=2).begin("2", node="b", pid=2).note("waking", node="a", pid=1)
    return books


def end_of_frozen(books):
    for event, attempt in (("1", 2), ("2", 1)):
        books.done(event, attempt=attempt, node="b", pid=2).ended(event, attempt=attempt, pid=2)
    return books.begin("3").done("3").ended("3")


def test_a_frozen_process_does_not_count_and_notices_at_once(books):
    frozen(books).passes(NOTICE / 2).interrupted("1")
    found = end_of_frozen(books).audit()
    assert found.violations == []
    assert NOTICE / 2 < found.longest_notice < NOTICE
    assert found.longest_gap >= 15


def test_a_process_that_wakes_and_does_not_notice(books):
    frozen(books).passes(2 * NOTICE).note("sent", tag="any")
    goes_on, too_many = end_of_frozen(books.interrupted("1")).violations()
    assert "goes on 0.2 s after waking, though attempt 2 of 1 on node b has begun" in goes_on
    assert too_many.startswith("3 run at once in work")


def test_a_process_that_wakes_and_has_not_noticed_in_the_end(books):
    frozen(books).done("1", attempt=2, node="b", pid=2).ended("1", attempt=2, pid=2)
    books.done("2", node="b", pid=2).ended("2", pid=2).begin("3").done("3").ended("3")
    [violation] = books.violations()
    assert "goes on" in violation


def test_a_short_sleep_interrupts_nobody(books):
    books.accepted("1").begin("1").note("frozen", node="a", pid=1).passes(1).note("waking", node="a", pid=1)
    books.passes(1).note("sent", tag="any").done("1").ended("1")
    assert books.violations() == []


def test_a_frozen_process_counts_again_once_it_is_awake(books):
    books.accepted("1", "2", "3").begin("1").note("frozen", node="a", pid=1).passes(1).note("waking", node="a", pid=1)
    books.passes(1).begin("2", node="b", pid=2).begin("3", node="b", pid=2)
    books.done("1").done("2", node="b", pid=2).done("3", node="b", pid=2)
    books.ended("1").ended("2", pid=2).ended("3", pid=2)
    [violation] = books.violations()
    assert violation.startswith("3 run at once")


def test_a_start_that_nothing_explains(books):
    books.accepted("1").begin("1").interrupted("1").begin("1", attempt=2).done("1", attempt=2).ended("1", attempt=2)
    assert books.violations() == ["attempt 2 of 1 on node a begins, and nothing had failed"]


def test_a_fault_long_before_explains_nothing(books):
    books.note("cut", node="a").note("mended", node="a").passes(AFTERMATH + 1)
    books.accepted("1").begin("1").interrupted("1").begin("1", attempt=2).done("1", attempt=2).ended("1", attempt=2)
    assert books.violations() == ["attempt 2 of 1 on node a begins, and nothing had failed"]


@pytest.mark.parametrize(
    "fault, who",
    [
        (dict(what="cut", node="a"), "the run's node"),
        (dict(what="stopping", node="a", pid=1), "the run's node"),
        (dict(what="exited", node="a", pid=7), "the run's node"),
        (dict(what="killed", node="b", pid=2), "another part"),
        (dict(what="down", server="nats-0"), "another part"),
    ],
)
def test_a_start_after_a_fault_is_counted_by_whose_it_was(books, fault, who):
    books.accepted("1").begin("1").note(**fault).interrupted("1")
    books.begin("1", attempt=2, node="c", pid=3).done("1", attempt=2, node="c", pid=3).ended("1", attempt=2, pid=3)
    found = books.audit()
    assert found.violations == []
    assert found.counts[f"starts after a fault of {who}"] == 1


def test_a_first_attempt_that_never_began_is_explained_by_a_fault_only(books):
    books.accepted("1", "2").begin("1", attempt=2).note("killed", node="b", pid=2)
    books.begin("2", attempt=2)
    for event in "12":
        books.done(event, attempt=2).ended(event, attempt=2)
    assert books.violations() == ["attempt 2 of 1 on node a begins, and nothing had failed"]


def test_one_event_twice_at_once(books):
    books.accepted("1").begin("1").note("cut", node="a").begin("1", attempt=2, node="b", pid=2).interrupted("1")
    books.done("1", attempt=2, node="b", pid=2).ended("1", attempt=2, pid=2)
    assert books.violations() == ["attempt 2 of 1 on node b begins while attempt 1 of 1 on node a is under way"]


def test_one_attempt_twice(books):
    books.accepted("1").begin("1").note("killed", node="a", pid=1).begin("1", node="b", pid=2)
    books.done("1", node="b", pid=2).ended("1", pid=2)
    before, after = books.violations()
    assert before == "attempt 1 of 1 on node b begins, and has begun before"
    assert after == "attempt 1 of 1 on node b begins after attempt 1 of 1 on node a"


def test_an_old_attempt_after_a_new_one(books):
    books.accepted("1").note("cut", node="a")
    books.begin("1", attempt=2, node="b", pid=2).done("1", attempt=2, node="b", pid=2)
    books.begin("1").interrupted("1").ended("1", attempt=2, pid=2)
    assert books.violations() == ["attempt 1 of 1 on node a begins after attempt 2 of 1 on node b"]


def test_a_start_after_the_end(books):
    books.accepted("1").begin("1").done("1").ended("1").note("killed", node="a", pid=1)
    books.begin("1", attempt=2, node="b", pid=2).done("1", attempt=2, node="b", pid=2)
    assert books.violations() == ["attempt 2 of 1 on node b begins after its client got its end"]


def test_one_request_two_events(books):
    books.accepted("1").begin("1").done("1").ended("1").begin("2", tag="tag 1").done("2", tag="tag 1")
    assert books.violations() == ["tag 1 was sent once, and is 1 and 2"]


def test_a_request_without_an_answer_may_have_been_taken(books):
    books.note("sent", tag="tag 1").begin("1").done("1")
    assert books.violations() == []


def test_an_event_that_nobody_sent(books):
    books.begin("1").done("1")
    assert books.violations() == ["attempt 1 of 1 on node a begins, and nobody sent tag 1"]


def test_a_refused_request_that_runs(books):
    books.note("sent", tag="tag 1").note("refused", tag="tag 1").begin("1").done("1")
    assert books.violations() == ["attempt 1 of 1 on node a begins, though tag 1 was refused"]


def test_a_request_that_is_refused_after_it_ran(books):
    books.note("sent", tag="tag 1").begin("1").done("1").note("refused", tag="tag 1")
    assert books.violations() == ["1 has begun, though tag 1 was refused"]


def test_accepted_twice(books):
    books.accepted("1").begin("1").done("1").ended("1").note("accepted", tag="tag 1", event="1")
    assert books.violations() == ["1 was accepted twice"]


def test_an_end_where_nothing_runs(books):
    books.accepted("1").begin("1").done("1").ended("1").done("1")
    assert books.violations() == ["attempt 1 of 1 ends on node a, where it isn't under way"]


def test_a_killed_process_says_nothing_more(books):
    books.accepted("1").begin("1").note("killed", node="a", pid=1).done("1").ended("1")
    assert books.violations() == ["attempt 1 of 1 ends on node a, where it isn't under way"]


def test_books_on_disk_keep_the_order(tmp_path):
    first, second = Books(tmp_path / "books"), Books(tmp_path / "books")
    for n in range(5):
        (first, second)[n % 2].note("sent", tag=str(n))
    entries = first.entries()
    assert [entry["tag"] for entry in entries] == list("01234")
    assert [entry["at"] for entry in entries] == sorted(entry["at"] for entry in entries)
