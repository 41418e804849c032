"""mariadb-client-test, the 294 tests of the C API, over a trio: direct or through the proxy."""

import re
import subprocess

from rounds import Round
from servers import LINKS_GO, PIPED, SEE_OTHERS

PROGRAM = "mariadb-client-test"
LISTED = re.compile(r"^(?P<name>\w+)$")

# What the suite expects of its server. Rows are replicated as such, since some of its statements
# depend on settings that are not replicated with them.
OPTIONS = [
    "--general-log=1",
    "--log-output=FILE,TABLE",
    "--max-allowed-packet=32000000",
    "--proxy-protocol-networks=*",
    "--binlog-format=ROW",
]


def all_tests():
    """The names of all tests, in the suite's order."""
    listed = subprocess.run([PROGRAM, "--no-defaults", "--show-tests"], capture_output=True)
    names = (LISTED.match(line) for line in listed.stdout.decode().splitlines())
    return [found["name"] for found in names if found]


class ClientTest(Round):
    """Each test by itself: a failed check ends the program, and some print another one's name."""

    options = OPTIONS
    group = LINKS_GO + SEE_OTHERS

    def take(self, tests, port, trio):
        passed, failed = [], []
        for test in tests:
            if self.once(port, test, trio):
                passed.append(test)
                continue
            failed.append(test)
            print(f"  failed: {test}", flush=True)
            self.tidy(trio)
        return passed, failed

    def tidy(self, trio):
        """Drops the accounts and schemas of a test that was cut short."""
        users = trio.primary.ask(
            "SELECT CONCAT(QUOTE(user), '@', QUOTE(host)) FROM mysql.user"
            " WHERE user NOT IN ('root', 'mariadb.sys')"
        ).splitlines()
        kept = "'mysql', 'information_schema', 'performance_schema', 'sys', 'test', 'mtr'"
        schemas = trio.primary.ask(
            f"SELECT schema_name FROM information_schema.schemata WHERE schema_name NOT IN ({kept})"
        ).splitlines()
        statements = [f"DROP USER {user}" for user in users]
        statements += [f"DROP DATABASE `{schema}`" for schema in schemas]
        if statements:
            trio.primary.ask(";".join(statements))

    def once(self, port, test, trio):
        """One call of the program; whether all was well."""
        command = [
            PROGRAM,
            "--no-defaults",
            "--host=127.0.0.1",
            f"--port={port}",
            "--user=root",
            "--testcase",
            f"--vardir={trio.var}",
            "--getopt-ll-test=25600M",
            test,
        ]
        done = subprocess.run(command, timeout=120, **PIPED)
        with open(self.folder / "out", "a") as out:
            out.write(done.stdout.decode(errors="replace"))
        return done.returncode == 0
