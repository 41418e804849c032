"""The suites of Python's drivers, of SQLAlchemy and of Django, from their source packages."""

import sys
import tarfile
import zlib

from drivers import HERE, Driver, call, drivers_folder, make
from servers import SEE_OTHERS

PINNED = HERE / "drivers.txt"


def environment():
    """The folder of a virtual environment with all of drivers.txt in it."""
    mark = zlib.crc32(PINNED.read_bytes())
    return make(drivers_folder() / f"suites-{mark:08x}", _environment)


def _environment(folder):
    call([sys.executable, "-m", "venv", folder])
    install = [folder / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install"]
    call([*install, "--requirement", PINNED])


def source(package):
    """The unpacked source package of the version that drivers.txt names."""
    lines = PINNED.read_text().splitlines()
    pinned = next(line for line in lines if line.startswith(f"{package}=="))

    def fill(folder):
        pip = [environment() / "bin" / "pip", "--quiet", "--disable-pip-version-check"]
        call([*pip, "download", "--no-deps", "--no-binary", package, "--dest", folder, pinned])
        archive = next(folder.glob("*.tar.gz"))
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        archive.unlink()

    folder = make(drivers_folder() / pinned.replace("==", "-"), fill)
    return next(path for path in folder.iterdir() if path.is_dir())


def own(folder):
    """One package by itself, of the version in the folder's name."""
    pip = [environment() / "bin" / "pip", "--quiet", "--disable-pip-version-check", "install"]
    call([*pip, "--no-deps", "--target", folder, folder.name.removeprefix("own-")])


class Python(Driver):
    """A suite whose tests note their own verdicts, by verdicts.py."""

    package = ""
    # Packages that it needs in other versions than those of drivers.txt.
    others = []

    def obtain(self):
        self.home = source(self.package)
        self.python = environment() / "bin" / "python"
        folders = [drivers_folder() / f"own-{package}" for package in self.others]
        self.imports = [HERE, *(make(folder, own) for folder in folders)]

    def verdicts(self, tests, port, trio):
        found = self.folder / "verdicts"
        found.write_text("")
        env = {"JUDGE_VERDICTS": found, "PYTHONDONTWRITEBYTECODE": "1"}
        env["PYTHONPATH"] = ":".join(map(str, self.imports))
        if tests is not None:
            env["JUDGE_TESTS"] = self.folder / "tests"
            env["JUDGE_TESTS"].write_text("\n".join(tests))
        self.call(port, {name: str(value) for name, value in env.items()}, trio)
        ended = {}
        for line in found.read_text().splitlines():
            test, _, verdict = line.partition("\t")
            if verdict != "skipped":
                # One that failed and was then torn down well has failed.
                ended[test] = ended.get(test, True) and verdict == "passed"
        return ended


class Pytest(Python):
    paths = ["tests"]

    def call(self, port, env, trio):
        env.update(self.env(port))
        flags = ["-p", "verdicts", "-p", "no:cacheprovider", "--timeout=300", "--maxfail=100000"]
        command = [self.python, "-m", "pytest", *flags, *self.flags(port), *self.paths]
        self.suite(command, env, self.home)

    def env(self, port):
        return {}

    def flags(self, port):
        return []


class Mysqlclient(Pytest):
    package = "mysqlclient"

    def env(self, port):
        config = self.folder / "my.cnf"
        config.write_text(
            "[MySQLdb-tests]\n"
            f"host = 127.0.0.1\nport = {port}\nuser = root\ndatabase = test\n"
            "default-character-set = utf8mb4\n"
        )
        return {"TESTDB": str(config)}


class Aiomysql(Pytest):
    package = "aiomysql"
    others = ["SQLAlchemy==1.3.24"]
    group = Pytest.group + "\n" + SEE_OTHERS

    def env(self, port):
        return {"MYSQL_ROOT_PASSWORD": "", "MYSQL_DB": "test_pymysql"}

    def flags(self, port):
        return [f"--mysql-address=proxied=127.0.0.1:{port}"]


class Connector(Pytest):
    """MariaDB's own connector."""

    package = "mariadb"
    paths = ["test/integration"]
    schemas = ["testp"]
    # It looks at Ssl_version and Compression of connections that ask for TLS 1.2 and for packets
    # to be compressed, which are the link's to the server: both sides are alike.
    options = ["--tls-version=TLSv1.2"]
    group = Pytest.group + '\nserver_compression = "zlib"'

    def obtain(self):
        super().obtain()
        # Beside its tests is a package of its own name that is not built.
        self.home = self.home / "testing"

    def prepare(self, trio):
        super().prepare(trio)
        # A test installs it on the primary, and the account that it makes is replicated.
        for replica in trio.replicas:
            replica.ask("INSTALL SONAME 'auth_ed25519'")

    def env(self, port):
        # Its accounts are made for localhost, which is where it connects from.
        return {"TEST_DB_HOST": "127.0.0.1", "TEST_DB_PORT": str(port), "LOCAL_DB": "local"}


class Sqlalchemy(Pytest):
    package = "SQLAlchemy"
    schemas = ["test", "test_schema", "test_schema_2"]
    paths = ["test/dialect/mysql"]

    def flags(self, port):
        address = f"root@127.0.0.1:{port}/test?charset=utf8mb4"
        return ["--backend-only", "--dburi", f"mariadb+{self.driver}://{address}"]


class SqlalchemyMysqldb(Sqlalchemy):
    driver = "mysqldb"


class SqlalchemyConnector(Sqlalchemy):
    driver = "mariadbconnector"


class SqlalchemySuite(SqlalchemyMysqldb):
    """What SQLAlchemy asks of the dialects of all databases; more than a thousand tests."""

    paths = ["test/dialect/test_suite.py"]


class Django(Python):
    package = "Django"
    schemas = []
    # Those of its folders that are about databases, and end within minutes.
    labels = [
        "aggregation",
        "backends",
        "basic",
        "bulk_create",
        "custom_columns",
        "datatypes",
        "db_functions",
        "delete",
        "expressions",
        "get_or_create",
        "inspectdb",
        "introspection",
        "lookup",
        "model_fields",
        "queries",
        "raw_query",
        "schema",
        "select_for_update",
        "transaction_hooks",
        "transactions",
    ]

    def call(self, port, env, trio):
        env["PYTHONPATH"] += f":{self.folder}"
        backend = (
            '"ENGINE": "django.db.backends.mysql", "HOST": "127.0.0.1", "USER": "root",'
            f' "PORT": {port}'
        )
        (self.folder / "judge_settings.py").write_text(
            "DATABASES = {\n"
            f'    "default": {{{backend}, "NAME": "first"}},\n'
            f'    "other": {{{backend}, "NAME": "second"}},\n'
            "}\n"
            'TEST_RUNNER = "django_verdicts.Runner"\n'
            'SECRET_KEY = "judge"\n'
            "USE_TZ = False\n"
            'PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]\n'
            'DEFAULT_AUTO_FIELD = "django.db.models.AutoField"\n'
        )
        flags = ["--settings=judge_settings", "--parallel=1", "--noinput", "--verbosity=1"]
        command = [self.python, "runtests.py", *flags, *self.labels]
        self.suite(command, env, self.home / "tests")
