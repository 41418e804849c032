"""A primary, two replicas behind it, and the proxy in front.

One folder is filled for a run, as mysql-test-run does it or as anybody does, and copied for every
server, so that a fresh trio costs seconds. Beside it is the configuration, my.cnf. root has no
password, and observes and replicates too: suites list accounts, and an account more would be seen.
"""

import atexit
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

SHARE = Path("/usr/share/mysql")
MTR = SHARE / "mysql-test"
PATIENCE = 90.0
# Of a group, for tests that count the server's connections and wait until those of before have
# gone.
LINKS_GO = 'link_idle_timeout = "1s"\nkeep_links = 0\n'
# For tests that look with one connection at what another one has just written.
SEE_OTHERS = 'consistency = "global"\n'
# What drivers expect of a server: today's character set, TLS, files of clients.
USUAL = """[mysqld]
character-set-server=utf8mb4
default-time-zone=+00:00
local-infile=1
innodb-log-file-size=32M
ssl-ca=@ENV.MYSQL_TEST_DIR/std_data/cacert.pem
ssl-cert=@ENV.MYSQL_TEST_DIR/std_data/server-cert.pem
ssl-key=@ENV.MYSQL_TEST_DIR/std_data/server-key.pem
"""

_running = []


def die_with_parent():
    """Children end when this process does, however it ends."""
    ctypes.CDLL("libc.so.6").prctl(1, signal.SIGKILL)


# How children are started: nobody types for them, and they end with this process.
CHILD = {"stdin": subprocess.DEVNULL, "preexec_fn": die_with_parent}
# The same, with all that they print in one stream.
PIPED = {**CHILD, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}


def spawn(command, log, env=None, cwd=None):
    """Starts a process that ends with this one at the latest."""
    with open(log, "ab") as out:
        child = subprocess.Popen(
            [str(part) for part in command],
            stdout=out,
            stderr=out,
            env=env,
            cwd=cwd,
            **CHILD,
        )
    _running.append(child)
    return child


def end(child, signals=(signal.SIGTERM, signal.SIGKILL)):
    """Ends one process of ours, by its id."""
    for number in signals:
        if child.poll() is not None:
            break
        child.send_signal(number)
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue
    if child in _running:
        _running.remove(child)


@atexit.register
def _end_all():
    for child in list(_running):
        end(child, (signal.SIGKILL,))


def free_port():
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, ready):
    """Waits on a state, with a bound."""
    end_at = time.monotonic() + PATIENCE
    while not ready():
        if time.monotonic() > end_at:
            raise TimeoutError(f"{what}: not within {PATIENCE:.0f} s")
        time.sleep(0.05)


def _statements(text):
    """A script for the command line client as one for --bootstrap: own delimiters undone."""
    out, delimiter = ["\n"], ";"
    for line in text.splitlines():
        if line.startswith("delimiter "):
            delimiter = line[len("delimiter ") :].removesuffix(delimiter)
        elif line.endswith(delimiter):
            out.append(line.removesuffix(delimiter) + ";\n")
        elif not line.lstrip().startswith("--"):
            out.append(line.replace("'@HOSTNAME@'", "localhost") + " ")
    return "".join(out)


def install(folder):
    """Fills `folder` as a server's first installation does, with the time zones."""
    folder.mkdir(parents=True)
    (folder.parent / "my.cnf").write_text(USUAL)
    with open(folder.parent / "install.log", "wb") as out:
        subprocess.run(
            [
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                "--auth-root-authentication-method=normal",
                f"--datadir={folder}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            check=True,
        )


def bootstrap(folder):
    """Fills `folder` with the system tables, the time zones and the checks that mtr wants."""
    folder.mkdir(parents=True)
    settings = (MTR / "include" / "default_mysqld.cnf").read_text()
    # Not for this program: a folder of its own server groups, read by an embedded server.
    settings = re.split(r"^\[embedded\]", settings, flags=re.M)[0] + "\nloose-aria\n"
    (folder.parent / "my.cnf").write_text(settings)
    (folder / "mysql").mkdir()
    scripts = [
        "mysql_system_tables.sql",
        "maria_add_gis_sp_bootstrap.sql",
        "mysql_performance_tables.sql",
        "mysql_system_tables_data.sql",
        "mysql_test_data_timezone.sql",
        "fill_help_tables.sql",
        "mysql_sys_schema.sql",
    ]
    # In the order and with the changes of mysql_install_db in mysql-test-run.pl.
    text = "use mysql;\n" + "".join((SHARE / name).read_text() for name in scripts)
    text += (
        "CREATE DATABASE IF NOT EXISTS test CHARACTER SET latin1"
        " COLLATE latin1_swedish_ci;\n"
        "ALTER TABLE gtid_slave_pos ENGINE=Aria transactional=0;\n"
        "DELETE FROM mysql.global_priv WHERE user= '';\n"
        "CREATE DATABASE mtr CHARSET=latin1;\n"
    )
    for name in ("mtr_warnings.sql", "mtr_check.sql"):
        text += _statements((MTR / "include" / name).read_text())
    log = folder.parent / "bootstrap.log"
    with open(log, "wb") as out:
        subprocess.run(
            [
                "mariadbd",
                "--no-defaults",
                "--bootstrap",
                "--user=root",
                f"--datadir={folder}",
                f"--tmpdir={folder.parent}",
                "--default-storage-engine=myisam",
                "--character-set-server=latin1",
                "--loose-innodb-log-file-size=10M",
                "--loose-disable-performance-schema",
                "--lc-messages-dir=/usr/share/mysql",
            ],
            input=text.encode(),
            stdout=out,
            stderr=out,
            check=True,
        )


class Server:
    """One server. The first of a trio keeps its data where mtr looks for it."""

    def __init__(self, name, number, data, var, settings):
        self.name = name
        self.settings = settings
        self.number = number
        self.data = data
        self.var = var
        self.port = free_port()
        self.run = var / "run"
        self.run.mkdir(parents=True, exist_ok=True)
        self.socket = self.run / f"{name}.sock"
        self.log = self.run / f"{name}.log"
        self.child = None

    def start(self, options=()):
        settings = self.settings.replace("@ENV.MYSQLTEST_VARDIR", str(self.var))
        settings = settings.replace("@ENV.MYSQL_TEST_DIR", str(MTR))
        config = self.run / f"{self.name}.cnf"
        config.write_text(settings)
        tmp = self.var / "tmp" / f"{self.name}"
        tmp.mkdir(parents=True, exist_ok=True)
        command = [
            "mariadbd",
            f"--defaults-file={config}",
            "--user=root",
            f"--datadir={self.data}",
            f"--tmpdir={tmp}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--socket={self.socket}",
            f"--pid-file={self.run / self.name}.pid",
            f"--server-id={self.number}",
            f"--report-port={self.port}",
            "--report-host=127.0.0.1",
            "--log-bin=binlog",
            "--binlog-format=MIXED",
            "--sync-binlog=0",
            "--innodb-flush-log-at-trx-commit=2",
            "--log-slave-updates=1",
            "--gtid-strict-mode=1",
            *options,
        ]
        # The server reads the time zone from its environment, as mtr sets it.
        env = dict(os.environ, TZ="GMT-3")
        self.child = spawn(command, self.log, env)

        def up():
            if self.child.poll() is not None:
                raise RuntimeError(f"{self.name} ended:\n{self.log.read_text()[-2000:]}")
            return self.ask("SELECT 1", quiet=True) == "1"

        wait_for(f"{self.name} to start", up)

    def ask(self, statement, quiet=False, form="-BN"):
        """What root sees, straight from this server; columns by tabs."""
        client = ["mariadb", "--no-defaults", "--skip-ssl", "-uroot", f"-S{self.socket}", form]
        done = subprocess.run(
            [*client, "-e", statement],
            capture_output=True,
            text=True,
            errors="replace",
        )
        if done.returncode and not quiet:
            raise RuntimeError(f"{self.name}: {done.stderr.strip()}")
        return done.stdout.strip()

    def alive(self):
        return self.child is not None and self.child.poll() is None

    def stop(self):
        if self.child:
            end(self.child, (signal.SIGKILL,))


class Trio:
    """A primary and two replicas, made afresh from the bootstrapped folder."""

    def __init__(self, folder, template, options=()):
        self.folder = folder
        self.options = list(options)
        self.var = folder / "var"
        self.servers = []
        settings = (template.parent / "my.cnf").read_text()
        for number, name in enumerate(("mysqld.1", "replica.2", "replica.3"), 1):
            data = self.var / name / "data"
            data.parent.mkdir(parents=True)
            shutil.copytree(template, data)
            self.servers.append(Server(name, number, data, self.var, settings))
        self.primary, *self.replicas = self.servers
        for path in ("log", "tmp"):
            (self.var / path).mkdir(exist_ok=True)

    def start(self):
        self.primary.start(self.options)
        for replica in self.replicas:
            replica.start([*self.options, "--read-only=1"])
            replica.ask(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_USER='root',"
                f" MASTER_PORT={self.primary.port}, MASTER_CONNECT_RETRY=1,"
                " MASTER_USE_GTID=slave_pos; START SLAVE"
            )
        wait_for("replication", lambda: all(self.trouble(r) is None for r in self.replicas))

    def trouble(self, replica):
        """Why `replica` does not replicate, or None."""
        if not replica.alive():
            return "dead"
        lines = replica.ask("SHOW SLAVE STATUS", quiet=True, form="-E").splitlines()
        state = dict(line.strip().partition(": ")[::2] for line in lines)
        if state.get("Slave_IO_Running") == "Yes" and state.get("Slave_SQL_Running") == "Yes":
            return None
        return state.get("Last_SQL_Error") or state.get("Last_IO_Error") or "not running"

    def strays(self, replica):
        """Transactions in the replica's binary log that began there: misrouted writes."""
        state = replica.ask("SELECT @@gtid_binlog_state", quiet=True)
        gtids = [gtid.split("-") for gtid in state.split(",") if gtid]
        return ["-".join(gtid) for gtid in gtids if gtid[1] == str(replica.number)]

    def stop(self):
        for server in self.servers:
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Proxy:
    """The built program in front of a trio."""

    def __init__(self, program, trio, group=""):
        self.trio = trio
        self.dir = trio.folder / "proxy"
        self.dir.mkdir()
        self.port, self.admin, self.http = (free_port() for _ in range(3))
        self.socket = trio.var / "run" / "proxy.sock"
        self.log = self.dir / "log"
        config = self.dir / "pointsman.toml"
        config.write_text(
            f'admin = "127.0.0.1:{self.admin}"\n'
            f'http = "127.0.0.1:{self.http}"\n'
            f'state_dir = "{self.dir}"\n'
            # A busy machine must not pass for a dead server.
            '[monitor]\nuser = "root"\npassword = ""\ninterval = "100ms"\ntimeout = "30s"\n'
            f'[groups.main]\nlisten = ["127.0.0.1:{self.port}", "{self.socket}"]\n'
            f'seeds = ["127.0.0.1:{trio.primary.port}"]\n'
            f"{group}\n"
        )
        config.chmod(0o600)
        self.child = spawn([program, "serve", "--config", config], self.log)

        def ready():
            if self.child.poll() is not None:
                raise RuntimeError(f"the proxy ended:\n{self.log.read_text()[-3000:]}")
            return self.get("/readyz") is not None

        wait_for("the proxy", ready)
        wait_for("both replicas in use", lambda: self.ready_replicas() == 2)

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return None

    def ready_replicas(self):
        text = self.get("/api/topology") or ""
        return text.count('"replica"')

    def metric(self, name, *labels):
        """The sum of the samples of `name` that bear all of `labels`."""
        total = 0.0
        for line in (self.get("/metrics") or "").splitlines():
            sample, _, value = line.rpartition(" ")
            found, _, rest = sample.partition("{")
            if found == name and all(label in rest for label in labels):
                total += float(value)
        return total

    def alive(self):
        return self.child.poll() is None

    def stop(self):
        end(self.child)
