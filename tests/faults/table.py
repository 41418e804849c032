"""Prints, as a table in Markdown, what a record of faults (POINTSMAN_RECORD) says.

A line of a record is a fault that has happened once: its number, the family, whether the outcome of
lost commits was found out ("known"), the writes that were acknowledged, those whose outcome clients
were told to be unknown, those they were told were not done, the longest time without an
acknowledged write in milliseconds, whether another server was the primary afterwards, how many servers
stayed out with something of their own; and of the rows themselves: acknowledged ones that are lost, such
that are there twice, such that are there although denied, and reads or sums that were not right.
"""

import collections
import pathlib
import re
import sys

FIELDS = (
    "number family outcome writes unknown denied gap primary strangers lost twice ghosts odd".split()
)
# Faults in which the connections of clients end with pointsman.
ENDS_ITSELF = {"11"}


def titles():
    """What each fault is called, by its number: as its test."""
    found = {}
    for path in pathlib.Path(__file__).parent.glob("*.rs"):
        for number, words in re.findall(r"fn fault_(\d+)_(\w+)\(", path.read_text()):
            found.setdefault(int(number), words.replace("_", " "))
    return found


def percentile(ordered, share):
    """The smallest value that so many percent of them do not exceed."""
    return ordered[max(0, -(-len(ordered) * share // 100) - 1)]


def main(path):
    """Prints the table, and a line below it that sums it up."""
    groups = collections.defaultdict(list)
    for line in pathlib.Path(path).read_text().splitlines():
        run = dict(zip(FIELDS, line.split("\t"), strict=True))
        groups[int(run["number"]), run["family"]].append(run)
    names = titles()
    print("| fault | family | times | replaced | writes | unknown | refused | without a write: p50 |"
          " p99 | lost | twice | denied, but there | wrong reads |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for (number, family), runs in sorted(groups.items()):
        def total(field, runs=runs):
            return sum(int(run[field]) for run in runs)

        gaps = sorted(int(run["gap"]) for run in runs)
        cells = [
            f"{number} {names.get(number, '')}", family, len(runs),
            sum(run["primary"] == "replaced" for run in runs),
            total("writes"), total("unknown"), total("denied"),
            f"{percentile(gaps, 50) / 1000:.2f} s", f"{percentile(gaps, 99) / 1000:.2f} s",
            total("lost"), total("twice"), total("ghosts"), total("odd"),
        ]
        print("| " + " | ".join(map(str, cells)) + " |")
    runs = [run for runs in groups.values() for run in runs]
    replaced = sum(run["primary"] == "replaced" for run in runs)
    sought = [run for run in runs if run["outcome"] == "known" and run["number"] not in ENDS_ITSELF]
    unknown = sum(int(run["unknown"]) for run in sought)
    print(f"\n{len(runs)} times, {replaced} changes of the primary; outcomes that stayed unknown"
          f" although they were to be found out, those aside in which pointsman itself ends: {unknown}.")


if __name__ == "__main__":
    main(sys.argv[1])
