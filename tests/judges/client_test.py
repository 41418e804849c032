"""mariadb-client-test, the 294 tests of the C API, over a trio: direct or through the proxy."""

import re
import subprocess

from servers import Proxy, Trio, die_with_parent

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


class Run:
    """The tests over one kind of connection; `program` is the proxy's, or None for direct."""

    def __init__(self, folder, template, program):
        self.folder = folder
        self.template = template
        self.program = program
        self.replica_reads = 0.0
        self.notes = []
        folder.mkdir(parents=True, exist_ok=True)

    def all(self, tests):
        """Runs `tests` one after another; answers those that passed, and those that failed."""
        passed, failed = [], []
        trio = Trio(self.folder / "trio", self.template, OPTIONS)
        proxy = None
        try:
            trio.start()
            port = trio.primary.port
            if self.program:
                proxy = Proxy(self.program, trio)
                port = proxy.port
            for test in tests:
                # Each by itself: a failed check ends the program, and some tests print the name
                # of another one.
                if self.once(port, test, trio):
                    passed.append(test)
                    continue
                failed.append(test)
                print(f"  failed: {test}", flush=True)
                self.tidy(trio)
            self.examine(trio, proxy)
        finally:
            if proxy:
                proxy.stop()
            trio.stop()
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
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            preexec_fn=die_with_parent,
        )
        with open(self.folder / "out", "a") as out:
            out.write(done.stdout.decode(errors="replace"))
        return done.returncode == 0

    def examine(self, trio, proxy):
        """Replicas must have served reads, and no write may have begun on one."""
        for replica in trio.replicas if proxy else ():
            address = f"127.0.0.1:{replica.port}"
            self.replica_reads += proxy.metric("pointsman_queries_total", address)
            why = trio.trouble(replica)
            if why:
                self.notes.append(f"{replica.name}: {why}")
            strays = trio.strays(replica)
            if strays:
                self.notes.append(f"writes on a replica: {strays}")
        for note in self.notes:
            print(f"  note: {note}", flush=True)
