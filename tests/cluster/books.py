"""The books of a cluster that is broken on purpose: one file, in the order in which things happened, that handlers,
clients and whoever breaks the cluster append to; and their audit, which knows what was promised and nothing of how.

Entries are lines of JSON with `what` and `at` (nanoseconds of CLOCK_MONOTONIC), and besides:

| what | by | with |
|---|---|---|
| begin, done, interrupted | a handler | event, attempt, queue, tag, node, pid |
| sent | a client, before it sends a request | tag |
| accepted | a client that was answered | tag, event |
| refused | a client that was told that there is no event | tag |
| ended | a client | event, end: the attempt that gave it and its pid, or {"error": …} |
| given up | a client | event, session, node: the address where its last stream was, since: when that began, on the clock of `at` |
| killed, exited | once the process is gone | node, pid |
| stopping | before SIGTERM | node, pid |
| frozen | once it is | node, pid |
| waking | before SIGCONT | node, pid |
| cut, mended | of a node's way to NATS | node |
| down, up | of a NATS server | server |
"""

import json
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

# In which a process that was frozen for longer than its lease has noticed, in seconds.
NOTICE = 0.2

# For how long after a fault a start may still be due to it: a lease, the wait of a new owner, and an election.
AFTERMATH = 20.0

SECOND = 1_000_000_000


class Books:
    """The file."""

    def __init__(self, path):
        self.path = path
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what, **more):
        os.write(self.file, (json.dumps({"what": what, "at": time.monotonic_ns(), **more}) + "\n").encode())

    def entries(self):
        with open(self.path) as lines:
            return [json.loads(line) for line in lines]


@dataclass
class Run:
    event: str
    attempt: int
    queue: str
    node: str
    pid: int
    begun: int  # the entry's number
    at: int

    def __str__(self):
        return f"attempt {self.attempt} of {self.event} on node {self.node}"


@dataclass
class Fault:
    part: str  # a node or a server
    begun: int
    over: int | None = None  # the entry's number
    over_at: int | None = None


@dataclass
class Audit:
    violations: list = field(default_factory=list)
    counts: Counter = field(default_factory=Counter)
    # The most runs at once, by queue.
    most: dict = field(default_factory=dict)
    # In seconds: the longest time without a start, and the longest that a process took to notice that it was frozen.
    longest_gap: float = 0.0
    longest_notice: float = 0.0

    def __str__(self):
        counts = ", ".join(f"{count} {what}" for what, count in sorted(self.counts.items()))
        most = ", ".join(f"{most} of {queue}" for queue, most in sorted(self.most.items()))
        return (
            f"{counts}; at once at most {most or 'none'}; {self.longest_gap:.1f} s without a start at most; "
            f"interrupted {1000 * self.longest_notice:.0f} ms after waking at most"
        )


def audit(entries, limits):
    """What is wrong with these books, and how much is in them."""
    auditor = Auditor(limits)
    for number, entry in enumerate(entries):
        auditor.take(number, entry)
    return auditor.finish()


class Auditor:
    def __init__(self, limits):
        self.limits = limits
        self.audit = Audit()
        self.now = 0
        # Runs by event and attempt: those that are under way, and all; and each event's last.
        self.running, self.runs, self.last_run = {}, {}, {}
        self.done = set()
        # Processes that are frozen, and since when others are awake again.
        self.frozen, self.waking = set(), {}
        self.faults = []
        # What has become of each request, and what each event was accepted for, in which entry, and its end.
        self.requests, self.event_of, self.accepted, self.ends = {}, {}, {}, {}
        self.last_start = None

    def take(self, number, entry):
        self.now = max(self.now, entry["at"])
        self.notice()
        self.audit.counts[entry["what"]] += 1
        getattr(self, "on_" + entry["what"])(number, entry)
        self.count()

    def finish(self):
        self.now += int(2 * NOTICE * SECOND)
        self.notice()
        self.count()
        for event in self.accepted:
            if event not in self.ends:
                self.violation(f"{event} was accepted, and its client never got an end")
        return self.audit

    def violation(self, text):
        self.audit.violations.append(text)

    # What runs at once.

    def counts(self, run):
        return run.pid not in self.frozen and run.pid not in self.waking

    def notice(self):
        """Processes that have been awake for long enough count again."""
        for pid, since in list(self.waking.items()):
            if self.now - since < NOTICE * SECOND:
                continue
            del self.waking[pid]
            for run in self.running.values():
                last = self.last_run[run.event]
                if run.pid == pid and last is not run:
                    self.violation(f"{run} goes on {NOTICE} s after waking, though {last} has begun")

    def count(self):
        at_once = defaultdict(list)
        for run in self.running.values():
            if self.counts(run):
                at_once[run.queue].append(run)
        for queue, runs in at_once.items():
            before = self.audit.most.get(queue, 0)
            self.audit.most[queue] = max(before, len(runs))
            # Said once for each number.
            if len(runs) > max(self.limits[queue], before):
                which = "; ".join(map(str, runs))
                self.violation(f"{len(runs)} run at once in {queue}, whose limit is {self.limits[queue]}: {which}")

    # Handlers.

    def on_begin(self, number, entry):
        event, attempt = entry["event"], entry["attempt"]
        run = Run(event, attempt, entry["queue"], entry["node"], entry["pid"], number, entry["at"])
        if (event, attempt) in self.runs:
            self.violation(f"{run} begins, and has begun before")
        if event in self.ends:
            self.violation(f"{run} begins after its client got its end")
        self.belongs(event, entry["tag"])
        request = self.requests.get(entry["tag"])
        if request is None:
            self.violation(f"{run} begins, and nobody sent {entry['tag']}")
        elif request == "refused":
            self.violation(f"{run} begins, though {entry['tag']} was refused")
        for other in self.running.values():
            if other.event == event and self.counts(other):
                self.violation(f"{run} begins while {other} is under way")
        self.explain(run)
        if self.last_start is not None:
            self.audit.longest_gap = max(self.audit.longest_gap, (run.at - self.last_start) / SECOND)
        self.last_start = run.at
        self.running[event, attempt] = self.runs[event, attempt] = self.last_run[event] = run

    def explain(self, run):
        """Every start beyond the first is due to a fault: of the node that had the one before, or at least of
        another part, which is counted apart."""
        before = self.last_run.get(run.event)
        if before and before.attempt >= run.attempt:
            return self.violation(f"{run} begins after {before}")
        if run.attempt == 1:
            return None
        # The attempt before may have been recorded on a node that died before it began.
        since, since_at = (before.begun, before.at) if before else self.accepted.get(run.event, (0, run.at))
        parts = {
            fault.part
            for fault in self.faults
            if fault.over is None or fault.over > since or since_at - fault.over_at < AFTERMATH * SECOND
        }
        if before and before.attempt == run.attempt - 1 and before.node in parts:
            self.audit.counts["starts after a fault of the run's node"] += 1
        elif parts:
            self.audit.counts["starts after a fault of another part"] += 1
        else:
            self.violation(f"{run} begins, and nothing had failed")

    def over(self, entry):
        run = self.running.pop((entry["event"], entry["attempt"]), None)
        if run is None or run.pid != entry["pid"]:
            return self.violation(
                f"attempt {entry['attempt']} of {entry['event']} ends on node {entry['node']}, where it isn't under way"
            )
        if run.pid in self.waking and entry["what"] == "interrupted":
            notice = (entry["at"] - self.waking[run.pid]) / SECOND
            self.audit.longest_notice = max(self.audit.longest_notice, notice)

    def on_done(self, _, entry):
        self.over(entry)
        self.done.add((entry["event"], entry["attempt"]))

    def on_interrupted(self, _, entry):
        self.over(entry)

    # Clients.

    def belongs(self, event, tag):
        """A request makes one event."""
        if self.event_of.setdefault(tag, event) != event:
            self.violation(f"{tag} was sent once, and is {self.event_of[tag]} and {event}")

    def on_sent(self, _, entry):
        self.requests[entry["tag"]] = "sent"

    def on_accepted(self, number, entry):
        self.belongs(entry["event"], entry["tag"])
        if entry["event"] in self.accepted:
            self.violation(f"{entry['event']} was accepted twice")
        self.accepted[entry["event"]] = (number, entry["at"])

    def on_refused(self, _, entry):
        self.requests[entry["tag"]] = "refused"
        if entry["tag"] in self.event_of:
            self.violation(f"{self.event_of[entry['tag']]} has begun, though {entry['tag']} was refused")

    def on_ended(self, _, entry):
        event, end = entry["event"], entry["end"]
        if event not in self.accepted:
            self.violation(f"{event} ended, and was never accepted")
        if self.ends.setdefault(event, end) != end:
            self.violation(f"{event} has two ends: {self.ends[event]} and {end}")
        if "error" in end:
            return self.violation(f"{event} ended with an error: {end['error']}")
        run = self.runs.get((event, end["attempt"]))
        if (event, end["attempt"]) not in self.done or run is None or run.pid != end["pid"]:
            self.violation(f"{event} has an end that no run gave: {end}")

    # Faults.

    def fails(self, part, number):
        self.faults.append(Fault(part, number))

    def is_well(self, part, number, entry):
        for fault in self.faults:
            if fault.part == part and fault.over is None:
                fault.over, fault.over_at = number, entry["at"]

    def gone(self, number, entry):
        """Nothing runs any more in a process that is no more."""
        self.fails(entry["node"], number)
        self.is_well(entry["node"], number, entry)
        self.frozen.discard(entry["pid"])
        self.waking.pop(entry["pid"], None)
        self.running = {key: run for key, run in self.running.items() if run.pid != entry["pid"]}

    on_killed = on_exited = gone

    def on_stopping(self, number, entry):
        self.fails(entry["node"], number)

    def on_frozen(self, number, entry):
        self.fails(entry["node"], number)
        self.frozen.add(entry["pid"])

    def on_waking(self, number, entry):
        self.is_well(entry["node"], number, entry)
        self.frozen.discard(entry["pid"])
        self.waking[entry["pid"]] = entry["at"]

    def on_cut(self, number, entry):
        self.fails(entry["node"], number)

    def on_mended(self, number, entry):
        self.is_well(entry["node"], number, entry)

    def on_down(self, number, entry):
        self.fails(entry["server"], number)

    def on_up(self, number, entry):
        self.is_well(entry["server"], number, entry)
