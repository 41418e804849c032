"""The suites of drivers in Go and Rust, and sysbench: programs that print their verdicts."""

import json
import os
import re
import shutil
from pathlib import Path

from drivers import Driver, call, drivers_folder, make
from servers import SEE_OTHERS

GO = re.compile(r"^--- (PASS|FAIL): (\S+)", re.M)
RUST = re.compile(r"^test (\S+) (?:- should panic )?\.\.\. (ok|FAILED)$", re.M)


class Go(Driver):
    """go-sql-driver's tests, as Debian packages it."""

    package = "github.com/go-sql-driver/mysql"
    schemas = ["gotest"]
    # It dials an address of the Internet.
    elsewhere = ["TestConnectorReturnsTimeout"]

    def obtain(self):
        version = call(
            ["dpkg-query", "-W", "-f", "${Version}", "golang-github-go-sql-driver-mysql-dev"]
        )
        self.program_folder = make(drivers_folder() / f"go-sql-driver-{version}", self.build)

    def build(self, folder):
        env = dict(os.environ, GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="-p=1")
        env["GOCACHE"] = str(folder / "cache")
        call(["go", "test", "-c", "-o", folder / "tests", self.package], env=env)

    def verdicts(self, tests, port, trio):
        program = self.program_folder / "tests"
        if tests is None:
            tests = call([program, "-test.list=.*"]).split()
        here = [test for test in tests if test.startswith("Test") and test not in self.elsewhere]
        command = [program, "-test.v", f"-test.run=^({'|'.join(here)})$"]
        env = {"MYSQL_TEST_ADDR": f"127.0.0.1:{port}", "MYSQL_TEST_CONCURRENT": "1"}
        printed = self.suite(command, env)
        return {name: verdict == "PASS" for verdict, name in GO.findall(printed)}


class Crate(Driver):
    """The tests of a crate that ships them."""

    crate = ""
    version = ""
    flags = []

    def obtain(self):
        folder = make(drivers_folder() / f"{self.crate}-{self.version}", self.build)
        self.programs = (folder / "programs").read_text().splitlines()
        self.home = folder / "source"

    def build(self, folder):
        """Fetches the crate as a dependency of an empty one, and builds its tests."""
        empty = folder / "empty"
        (empty / "src").mkdir(parents=True)
        (empty / "src" / "lib.rs").write_text("")
        (empty / "Cargo.toml").write_text(
            '[package]\nname = "empty"\nversion = "0.1.0"\nedition = "2021"\n'
            f'[dependencies]\n{self.crate} = "={self.version}"\n'
        )
        described = call(["cargo", "metadata", "--format-version=1"], cwd=empty)
        packages = json.loads(described[described.index("{") :])["packages"]
        found = next(each for each in packages if each["name"] == self.crate)
        shutil.copytree(Path(found["manifest_path"]).parent, folder / "source")
        # The toolchain is that of this machine, not the one that its authors name.
        (folder / "source" / "rust-toolchain.toml").unlink(missing_ok=True)
        self.adapt(folder / "source")
        build = ["cargo", "test", "--no-run", "--message-format=json", "-j1", *self.flags]
        env = dict(os.environ, CARGO_TARGET_DIR=str(folder / "target"))
        env["CARGO_PROFILE_TEST_DEBUG"] = env["CARGO_PROFILE_DEV_DEBUG"] = "0"
        printed = call(build, cwd=folder / "source", env=env)
        made = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
        programs = [
            each["executable"]
            for each in made
            if each.get("executable") and each["profile"]["test"]
        ]
        (folder / "programs").write_text("\n".join(programs) + "\n")

    def adapt(self, source):
        """Changes to the source that its tests need to be built from the package alone."""

    def env(self, port):
        raise NotImplementedError

    def verdicts(self, tests, port, trio):
        found = {}
        for program in self.programs:
            label = Path(program).name.rpartition("-")[0]
            command = [program, "--test-threads=1"]
            if tests is not None:
                mine = [test.partition(" ")[2] for test in tests if test.startswith(f"{label} ")]
                if not mine:
                    continue
                command += ["--exact", *mine]
            printed = self.suite(command, self.env(port), self.home)
            for name, verdict in RUST.findall(printed):
                found[f"{label} {name}"] = verdict == "ok"
        return found


class MysqlAsync(Crate):
    crate = "mysql_async"
    version = "0.37.1"
    # Its tests send packets beyond 16 MiB.
    variables = {"max_allowed_packet": 1 << 26}

    def env(self, port):
        return {"DATABASE_URL": f"mysql://root@127.0.0.1:{port}/mysql"}


class MysqlAsyncCompressed(MysqlAsync):
    def env(self, port):
        return {**super().env(port), "COMPRESS": "1"}


class Sqlx(Crate):
    """What needs neither a server to be compiled nor sqlx's own macros for tests of types."""

    crate = "sqlx"
    version = "0.9.0"
    schemas = ["sqlx"]
    # One connection reads what another one of the pool has set up.
    group = Crate.group + "\n" + SEE_OTHERS
    flags = [
        "--no-default-features",
        "--features=mysql,runtime-tokio,macros,migrate,json",
        "--test=mysql",
        "--test=mysql-error",
        "--test=mysql-describe",
        "--test=mysql-migrate",
        "--test=mysql-test-attr",
    ]
    # The crate that its tests use, which is not packaged.
    helper = """use sqlx::{Connection, Database};

pub fn setup_if_needed() {}

pub async fn new<DB: Database>() -> anyhow::Result<DB::Connection> {
    Ok(DB::Connection::connect(&std::env::var("DATABASE_URL")?).await?)
}
"""

    def adapt(self, source):
        crate = source / "sqlx-test"
        (crate / "src").mkdir(parents=True)
        (crate / "src" / "lib.rs").write_text(self.helper)
        (crate / "Cargo.toml").write_text(
            '[package]\nname = "sqlx-test"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n'
            'anyhow = "1"\nsqlx = { path = "..", default-features = false }\n'
        )
        manifest = (source / "Cargo.toml").read_text()
        for unused in ("criterion", "libsqlite3-sys", "trybuild", "async-std"):
            pattern = rf"^\[(?:target\.\S+\.)?dev-dependencies\.{unused}\]\n(?:[^\[\n].*\n)*"
            manifest = re.sub(pattern, "", manifest, flags=re.M)
        manifest += '\n[dev-dependencies.sqlx-test]\npath = "sqlx-test"\n[workspace]\n'
        (source / "Cargo.toml").write_text(manifest)

    def env(self, port):
        return {"DATABASE_URL": f"mysql://root@127.0.0.1:{port}/sqlx"}

    def prepare(self, trio):
        super().prepare(trio)
        for script in ("setup.sql", "setup-mariadb.sql"):
            trio.primary.ask("USE sqlx;" + (self.home / "tests" / "mysql" / script).read_text())


class Sysbench(Driver):
    """Its scripts for transactions, each for some seconds by several threads: no error at all."""

    scripts = [
        "oltp_point_select",
        "oltp_read_only",
        "oltp_read_write",
        "oltp_write_only",
        "oltp_update_index",
        "oltp_update_non_index",
        "oltp_insert",
        "oltp_delete",
        "select_random_points",
        "select_random_ranges",
        "bulk_insert",
    ]
    schemas = ["sbtest"]
    ways = ["auto", "disable"]

    def verdicts(self, tests, port, trio):
        found = {}
        for script in self.scripts:
            for way in self.ways:
                test = f"{script} {way}"
                if tests is None or test in tests:
                    found[test] = self.script(script, way, port)
        return found

    def script(self, script, way, port):
        flags = [
            "--mysql-host=127.0.0.1",
            f"--mysql-port={port}",
            "--mysql-user=root",
            "--mysql-ignore-errors=1213,1205",
            f"--db-ps-mode={way}",
            "--threads=8",
            "--time=5",
        ]
        if script.startswith("oltp"):
            flags.append("--tables=2")
        if script != "bulk_insert":
            flags.append("--table-size=1000")
        well = True
        for step in ("prepare", "run", "cleanup"):
            printed = self.suite(["sysbench", script, *flags, step])
            # Deadlocks and lock timeouts are the scripts' own, and repeated by sysbench.
            well = well and not re.search(r"^(FATAL|ALERT)", printed, re.M)
        return well
