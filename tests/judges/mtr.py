"""mysql-test-run over a trio: direct or through the proxy, in shards with fresh servers."""

import os
import re
import shutil
import signal
import subprocess
import threading
from pathlib import Path

from servers import LINKS_GO, MTR, PIPED, SEE_OTHERS, Proxy, Trio

LINE = re.compile(
    r"^(?P<name>\S+\.\S+)(?: '[^']*')?\s+(?:w\d+\s+)?\[ (?P<verdict>pass|fail|skipped|disabled) \]"
)
# A shard of so many tests amortises the start of its servers; a wrecked one costs no more.
SHARD = 24
# Status variables about TLS and compression are those of the link to the server, and clients look
# at the suite's own certificate: tests about them have both sides alike.
ENCRYPTED = re.compile(r"main\.ssl_")
GROUP = LINKS_GO + SEE_OTHERS
ENCRYPTED_GROUP = f"""{GROUP}server_tls = "skip-verify"
server_compression = "zlib"
tls_certificate = "{MTR}/std_data/server-cert.pem"
tls_key = "{MTR}/std_data/server-key.pem"
"""


def listed(path):
    """The first word of each line of `path` that is not a comment."""
    lines = (line.split("#", 1)[0].split() for line in Path(path).read_text().splitlines())
    return [words[0] for words in lines if words]


def runner(folder):
    """mysql-test-run as it is meant. It has no test run over TLS against a server that runs
    already: it looks for `ssl`, which is an option of servers and no variable of theirs."""
    meant = (MTR / "mysql-test-run.pl").read_text(errors="surrogateescape")
    meant = meant.replace("$mysqld_variables{'ssl'}", "$mysqld_variables{'have-ssl'}")
    path = folder / "mysql-test-run.pl"
    path.write_text(meant, errors="surrogateescape")
    return path


class Run:
    """Tests over one kind of connection; `program` is the proxy's, or None for direct."""

    def __init__(self, folder, template, program, options=(), server_options=()):
        self.folder = folder
        self.template = template
        self.program = program
        self.options = list(options)
        self.server_options = list(server_options)
        self.verdicts = {}
        self.notes = []
        self.lock = threading.Lock()
        self.replica_reads = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        self.runner = runner(folder)

    def all(self, tests, parallel=1, size=None):
        """Runs `tests`; afterwards `verdicts` has one of pass, fail, skipped, lost for each."""
        size = size or SHARD
        kinds = [[test for test in tests if bool(ENCRYPTED.match(test)) == kind] for kind in (0, 1)]
        shards = [some[at : at + size] for some in kinds for at in range(0, len(some), size)]
        todo = list(enumerate(shards))
        todo.reverse()

        def work():
            while True:
                with self.lock:
                    if not todo:
                        return
                    number, shard = todo.pop()
                self.shard(number, shard)

        threads = [threading.Thread(target=work) for _ in range(parallel)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def shard(self, number, tests):
        """Runs `tests` on fresh servers; after one that wrecks them the rest begins anew."""
        left, attempt = list(tests), 0
        while left:
            done = self.once(f"{number}-{attempt}", left)
            attempt += 1
            # What came after a test that ended the server, or replication, is not to be trusted.
            left = left[len(done) :] if done else left[1:]
        with self.lock:
            for name in tests:
                self.verdicts.setdefault(name, "lost")
            have, verdicts = len(self.verdicts), self.verdicts.values()
            failed = sum(1 for verdict in verdicts if verdict in ("fail", "lost"))
        print(f"  {have} tests so far, {failed} failed", flush=True)

    def once(self, name, tests):
        trio = Trio(self.folder / name, self.template, self.server_options)
        proxy = None
        try:
            trio.start()
            port, socket = trio.primary.port, trio.primary.socket
            if self.program:
                group = ENCRYPTED_GROUP if ENCRYPTED.match(tests[0]) else GROUP
                proxy = Proxy(self.program, trio, group)
                port, socket = proxy.port, proxy.socket
            done = self.mtr(trio, tests, port, socket, proxy)
            self.examine(name, trio, proxy, done)
        finally:
            if proxy:
                proxy.stop()
            logs = self.folder / f"{name}.logs"
            if proxy:
                logs.mkdir(exist_ok=True)
                shutil.copy(proxy.log, logs / "pointsman.log")
            trio.stop()
        return done

    def mtr(self, trio, tests, port, socket, proxy):
        """One call of mysql-test-run; answers the tests that have a verdict, in order."""
        env = dict(os.environ, MASTER_MYPORT=str(port), MASTER_MYSOCK=str(socket))
        command = [
            "perl",
            self.runner,
            *(f"--extern={word}" for word in (
                "host=127.0.0.1", f"port={port}", "user=root", "protocol=tcp"
            )),
            f"--vardir={trio.var}",
            "--force",
            "--max-test-fail=0",
            "--testcase-timeout=3",
            "--suite-timeout=60",
            "--nowarnings",
            "--noreorder",
            *self.options,
            *tests,
        ]
        output = self.folder / f"{trio.folder.name}.out"
        done = []
        with open(output, "w", errors="replace") as out:
            child = subprocess.Popen(
                [str(part) for part in command],
                text=True,
                errors="replace",
                env=env,
                cwd=MTR,
                start_new_session=True,
                **PIPED,
            )
            watch = threading.Timer(60 * 60, child.send_signal, (signal.SIGTERM,))
            watch.start()
            try:
                for line in child.stdout:
                    out.write(line)
                    out.flush()
                    found = LINE.match(line)
                    if not found:
                        continue
                    test = found["name"]
                    verdict = found["verdict"].replace("disabled", "skipped")
                    with self.lock:
                        self.verdicts[test] = verdict
                    done.append(test)
                    # A test that fails leaves its tables and settings to the next ones.
                    if verdict == "fail":
                        break
                    trouble = self.trouble(trio, proxy)
                    if trouble:
                        self.note(test, trouble)
                        break
            finally:
                watch.cancel()
                self.rest(child, out, done)
                try:
                    os.killpg(child.pid, signal.SIGTERM)
                    child.wait(timeout=20)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    pass
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()
        return done

    def rest(self, child, out, done):
        """Keeps what mtr says about the test that ended the shard."""
        for line in child.stdout:
            out.write(line)
            if LINE.match(line) or line.startswith("The servers were restarted"):
                break
            if "saving '" in line:
                break

    def trouble(self, trio, proxy):
        """What a test left broken, so that the next one needs fresh servers."""
        if not trio.primary.alive():
            return "the primary ended"
        if proxy and not proxy.alive():
            return "the proxy ended"
        for replica in trio.replicas if proxy else ():
            why = trio.trouble(replica)
            if why:
                return f"{replica.name}: {why}"
        return None

    def examine(self, name, trio, proxy, done):
        if not proxy or not proxy.alive():
            return
        with self.lock:
            for replica in trio.replicas:
                address = f"127.0.0.1:{replica.port}"
                self.replica_reads += proxy.metric("pointsman_queries_total", address)
        for replica in trio.replicas:
            strays = trio.strays(replica) if replica.alive() else []
            if strays:
                self.note(f"shard {name} ({done[0]}..{done[-1]})", f"writes on a replica: {strays}")

    def note(self, test, what):
        with self.lock:
            self.notes.append(f"{test}: {what}")
        print(f"  note: {test}: {what}", flush=True)
