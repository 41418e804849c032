"""Inside the suites that Python runs: takes the chosen tests, and notes how each one ended.

pytest loads this as a plugin, Django as its TEST_RUNNER. JUDGE_TESTS names a file with the tests
to run, one a line (all of them without it), JUDGE_VERDICTS the file to write: a test, a tab, and
passed, failed or skipped.
"""

import os
from pathlib import Path


def chosen():
    """The tests to run, or None for all."""
    path = os.environ.get("JUDGE_TESTS")
    return set(Path(path).read_text().splitlines()) if path else None


def note(test, verdict):
    with open(os.environ["JUDGE_VERDICTS"], "a") as out:
        out.write(f"{test}\t{verdict}\n")


def pytest_collection_modifyitems(items):
    tests = chosen()
    if tests is not None:
        items[:] = [item for item in items if item.nodeid in tests]


def pytest_runtest_logreport(report):
    # A test has three reports; its own one counts, and of the others what went wrong. What its
    # authors let fail (xfail) has not failed.
    if hasattr(report, "wasxfail"):
        note(report.nodeid, "passed")
    elif report.when == "call" or report.outcome != "passed":
        note(report.nodeid, report.outcome)
