"""Prints what benchmarks have measured, a line of JSON each, as a table: the events a second of all, and how many
times as much ours are. `table.py OURS FILE`; the medians count."""

import json
import statistics
import sys

us, file = sys.argv[1:]
rates, others = {}, {}
for line in open(file):
    measured = json.loads(line)
    key = (measured["who"], measured["in_flight"])
    if "events_per_second" in measured:
        rates.setdefault(key, []).append(measured["events_per_second"])
    else:
        [unit] = set(measured) - {"who", "in_flight"}
        others.setdefault((measured["who"], unit), []).append(measured[unit])
rate = {key: statistics.median(values) for key, values in rates.items()}
flights = sorted({in_flight for _, in_flight in rate})
ours = {in_flight: rate[us, in_flight] for in_flight in flights}
print("| events a second, in flight | " + " | ".join(f"{n:,}" for n in flights) + " |")
print("|---" * (len(flights) + 1) + "|")
for who in dict.fromkeys(who for who, _ in rate):
    # Ours, so many times as much.
    cells = [f"{rate[who, n]:,.0f} ({ours[n] / rate[who, n]:.2f}x)" for n in flights]
    print(f"| {who} | " + " | ".join(cells) + " |")
for (who, unit), values in others.items():
    print(f"{who}: {statistics.median(values):.2f} {unit}")
