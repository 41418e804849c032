"""Runs the judges: suites of others, through the proxy and directly, and compares.

A test that fails through the proxy is run again the same way, then directly. What passes
directly and failed twice is a difference; those in exceptions.txt are expected.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import client_test
import mtr
import programs
import python_suites
from servers import bootstrap, install

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Options of mysql-test-run for each way of running its tests.
MTR = {
    "mtr": [],
    "mtr-ps": ["--ps-protocol"],
    "mtr-cursor": ["--cursor-protocol"],
    "mtr-compress": ["--compress"],
    "mtr-ssl": ["--ssl"],
}
# Drivers' own suites. What passes directly is what is judged.
DRIVERS = {
    "mysqlclient": python_suites.Mysqlclient,
    "aiomysql": python_suites.Aiomysql,
    "mariadb-connector": python_suites.Connector,
    "sqlalchemy": python_suites.SqlalchemyMysqldb,
    "sqlalchemy-connector": python_suites.SqlalchemyConnector,
    "sqlalchemy-suite": python_suites.SqlalchemySuite,
    "django": python_suites.Django,
    "go": programs.Go,
    "mysql-async": programs.MysqlAsync,
    "mysql-async-compressed": programs.MysqlAsyncCompressed,
    "sqlx": programs.Sqlx,
    "sysbench": programs.Sysbench,
}
# More tests than these that fail on one trio have one reason, and are taken together again.
ALONE = 30
JUDGES = [*MTR, "client-test", *DRIVERS]


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/judges", description=__doc__)
    known = f"judges to run ({', '.join(JUDGES)}); default: mtr"
    parser.add_argument("name", nargs="*", help=known)
    parser.add_argument("--subset", action="store_true", help="the tests of mtr-ci.txt only")
    parser.add_argument("--tests", help="comma-separated tests, or a file with one a line")
    parser.add_argument("--direct", action="store_true", help="directly only: what can be judged")
    parser.add_argument("--parallel", type=int, default=2, help="trios of servers at a time")
    parser.add_argument("--keep", help="folder for logs and lists; default: a temporary one")
    return parser.parse_args()


def program():
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("POINTSMAN_PROGRAM", target / "debug" / "pointsman")


def exceptions(judge):
    """Test -> reason, of the lines of exceptions.txt for `judge`."""
    found = {}
    for line in (HERE / "exceptions.txt").read_text().splitlines():
        words = line.split("#", 1)[0].split(None, 2)
        if len(words) == 3 and words[0] in (judge, judge.split("-")[0]):
            found[words[1]] = words[2]
    return found


class Suite:
    """The tests of one judge, over and over."""

    def __init__(self, judge, folder, template):
        self.judge, self.folder, self.template = judge, folder, template
        self.rounds = 0

    def tests(self, chosen):
        """The tests to judge: those that were named, or all candidates."""
        if chosen.tests:
            named = Path(chosen.tests)
            return mtr.listed(named) if named.exists() else chosen.tests.split(",")
        return self.candidates(chosen)

    def run(self, tests, proxied, shard=None):
        """Runs `tests`; answers those that passed, those that failed, and stray writes."""
        self.rounds += 1
        kind = "proxied" if proxied else "direct"
        begun = time.monotonic()
        folder = self.folder / f"{self.judge}-{self.rounds}-{kind}"
        run, passed, failed = self.once(folder, program() if proxied else None, tests, shard)
        skipped = len(tests) - len(passed) - len(failed) if tests else 0
        where = f", {run.replica_reads:.0f} statements on replicas" if proxied else ""
        print(
            f"{self.judge} {kind}: {len(passed)} passed, {len(failed)} failed,"
            f" {skipped} skipped{where}, {time.monotonic() - begun:.0f} s",
            flush=True,
        )
        (folder / "passed").write_text("\n".join(passed) + "\n")
        (folder / "failed").write_text("\n".join(failed) + "\n")
        return passed, failed, [note for note in run.notes if "writes on a replica" in note]


class Mtr(Suite):
    """mysql-test-run's tests, one way of running them."""

    def __init__(self, judge, folder, template, parallel):
        super().__init__(judge, folder, template)
        self.parallel = parallel

    def candidates(self, chosen):
        return mtr.listed(HERE / ("mtr-ci.txt" if chosen.subset else "mtr-pass.txt"))

    def once(self, folder, proxy, tests, shard):
        run = mtr.Run(folder, self.template, proxy, MTR[self.judge])
        run.all(tests, self.parallel, shard)
        passed = [test for test in tests if run.verdicts.get(test) == "pass"]
        failed = [test for test in tests if run.verdicts.get(test) in ("fail", "lost")]
        return run, passed, failed


class OneTrio(Suite):
    """A judge whose tests are all taken on one trio, by its own kind of `Round`."""

    def __init__(self, judge, folder, template, kind):
        super().__init__(judge, folder, template)
        self.kind = kind

    def candidates(self, chosen):
        return client_test.all_tests()

    def once(self, folder, proxy, tests, shard):
        """Runs `tests` (None: all that the suite has); with a shard of one, each by itself."""
        alone = shard == 1 and len(tests) <= ALONE
        rounds = [[test] for test in tests] if alone else [tests]
        passed, failed, notes, reads = [], [], [], 0.0
        for number, some in enumerate(rounds):
            run = self.kind(folder / str(number), self.template, proxy)
            well, badly = run.all(some)
            passed, failed, notes = passed + well, failed + badly, notes + run.notes
            reads += run.replica_reads
        run.notes, run.replica_reads = notes, reads
        return run, passed, failed


class Driver(OneTrio):
    """A driver's suite: what it has, and what of that passes directly, is found out first."""

    def candidates(self, chosen):
        passed, failed, _ = self.run(None, False)
        for test in failed:
            print(f"  fails directly: {test}")
        if not passed:
            sys.exit(f"{self.judge}: nothing passes directly: see {self.folder}")
        return passed


def judge(suite, tests):
    """Runs one suite; answers what only the proxy fails and what it wrote to replicas."""
    expected = exceptions(suite.judge)
    tests = [test for test in tests if test not in expected]
    _, failed, strays = suite.run(tests, True)
    if failed:
        # One a server, so that none suffers from another.
        _, failed, more = suite.run(failed, True, 1)
        strays += more
    differences = []
    if failed:
        differences, neither, _ = suite.run(failed, False, 1)
        for test in neither:
            print(f"  {test} fails directly too")
    for test in differences:
        print(f"  DIFFERENT {test}")
    for stray in strays:
        print(f"  STRAY {stray}")
    print(f"{suite.judge}: {len(differences)} differences, {len(expected)} exceptions", flush=True)
    return differences + strays


def suite_of(name, folder, chosen):
    """The suite of a judge, with the folder that its servers begin with."""
    driver = name in DRIVERS
    template = folder / ("usual" if driver else "template") / "data"
    if not template.exists():
        (install if driver else bootstrap)(template)
    if name in MTR:
        return Mtr(name, folder, template, chosen.parallel)
    if driver:
        return Driver(name, folder, template, DRIVERS[name])
    return OneTrio(name, folder, template, client_test.ClientTest)


def main():
    chosen = arguments()
    unknown = [name for name in chosen.name if name not in JUDGES]
    if unknown:
        sys.exit(f"no such judge: {', '.join(unknown)}; there are {', '.join(JUDGES)}")
    folder = Path(chosen.keep or tempfile.mkdtemp(prefix="pointsman-judges-")).resolve()
    print(f"logs and lists: {folder}", flush=True)
    bad = []
    for name in chosen.name or ["mtr"]:
        suite = suite_of(name, folder, chosen)
        tests = suite.tests(chosen)
        if not chosen.direct:
            bad += judge(suite, tests)
        elif name not in DRIVERS or chosen.tests:
            suite.run(tests, False)
    sys.exit(1 if bad else 0)


main()
