"""Drivers' own test suites: how each is obtained, and how it is run.

Sources, environments and builds are kept in the folder of drivers beside those of tests/real.
A round asks the suite for its verdicts, test by test; `None` for the tests means all of them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rounds import Round
from servers import CHILD, PIPED

HERE = Path(__file__).resolve().parent
# A suite that hangs is ended; what has no verdict then counts as not passed.
PATIENCE = 60 * 60


def drivers_folder():
    """Where downloaded sources and builds are kept, out of the repository."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
    return target.resolve() / "drivers"


def make(folder, fill):
    """Makes `folder` by `fill(folder)` once; a half-made one is begun anew."""
    done = folder / ".complete"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"  obtaining {folder.name}", flush=True)
        fill(folder)
        done.touch()
    return folder


def call(command, **how):
    """Runs a command that has to succeed, with its output where ours goes on failure."""
    done = subprocess.run(
        [str(part) for part in command],
        text=True,
        errors="replace",
        **PIPED,
        **how,
    )
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout[-4000:]}")
    return done.stdout


class Driver(Round):
    """The suite of one driver."""

    # Suites look at Ssl_cipher and Ssl_version, which are the link's to the server.
    group = 'server_tls = "skip-verify"'
    # What the suite wants of its servers beyond their defaults.
    schemas = ["test"]
    variables = {}

    def __init__(self, *where):
        super().__init__(*where)
        self.obtain()

    def obtain(self):
        """Fetches and builds what is not there yet."""

    def verdicts(self, tests, port, trio):
        """Runs `tests` and answers test -> whether it passed; what was skipped is absent."""
        raise NotImplementedError

    def prepare(self, trio):
        for schema in self.schemas:
            trio.primary.ask(f"CREATE DATABASE IF NOT EXISTS {schema} CHARACTER SET utf8mb4")
        for server in trio.servers:
            for name, value in self.variables.items():
                server.ask(f"SET GLOBAL {name} = {value}")

    def take(self, tests, port, trio):
        found = self.verdicts(tests, port, trio)
        tests = list(found) if tests is None else tests
        # One that is not even run, while it passed directly, is no better than one that fails.
        passed = [test for test in tests if found.get(test)]
        return passed, [test for test in tests if not found.get(test)]

    def suite(self, command, env=(), cwd=None):
        """One call of a suite's program; answers what it printed, kept in the file `out` too."""
        path = self.folder / "out"
        with open(path, "ab") as out:
            begun = out.tell()
            child = subprocess.Popen(
                [str(part) for part in command],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=dict(os.environ, **dict(env)),
                cwd=cwd or self.folder,
                **CHILD,
            )
            try:
                child.wait(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                self.notes.append(f"ended after {PATIENCE} s")
        with open(path, "rb") as out:
            out.seek(begun)
            return out.read().decode(errors="replace")
