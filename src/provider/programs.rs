//! Finding the server and client programs of each family, and how to start them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::provider::{Error, Flavour};

/// Where `scripts/server-folder` puts MySQL unless told otherwise.
pub const MYSQL_ROOT: &str = "/var/tmp/pointsman-mysql";

/// Where it puts a newer MariaDB than the system's.
pub const MARIADB_ROOT: &str = "/var/tmp/pointsman-mariadb";

/// Where Debian and others put programs, beside the search path: servers are in `sbin`.
const FOLDERS: &[&str] = &["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// The programs of one family. Each is a command line's beginning: the program, or a loader with
/// the program as its argument.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The server.
    pub server: Vec<String>,
    /// The command line client.
    pub client: Vec<String>,
    /// How an empty data directory is made.
    pub install: Install,
    /// Options that a server from a folder of its own needs to find its files.
    pub places: Vec<String>,
}

/// The client programs of one family, which is all that is needed to copy data between servers that
/// run elsewhere.
#[derive(Debug, Clone)]
pub struct Clients {
    /// The command line client.
    pub client: Vec<String>,
    /// What writes a server's content as statements.
    pub dump: Vec<String>,
    /// What writes a binary log as statements.
    pub log: Vec<String>,
}

/// How an empty data directory is made.
#[derive(Debug, Clone)]
pub enum Install {
    /// By a script, which is such a beginning too: `mariadb-install-db`.
    Script(Vec<String>),
    /// By the statements of these files, in this order: what that script does. It cannot be used
    /// where the server needs a loader.
    Statements(Vec<PathBuf>),
    /// By the server itself, with `--initialize-insecure`.
    Server,
}

/// The files that `mariadb-install-db` has a server read.
const SYSTEM_TABLES: &[&str] = &[
    "mariadb_system_tables.sql",
    "mariadb_performance_tables.sql",
    "mariadb_system_tables_data.sql",
    "fill_help_tables.sql",
    "maria_add_gis_sp_bootstrap.sql",
    "mariadb_sys_schema.sql",
];

/// A folder that a distribution's packages were unpacked into. Its programs run under the folder's
/// own loader, as they may need a newer libc than the system has.
struct Folder<'a> {
    root: &'a Path,
    loader: PathBuf,
}

impl Folder<'_> {
    fn program(&self, path: &str) -> Vec<String> {
        let libraries = self.loader.parent().unwrap_or(self.root);
        let program = self.root.join(path);
        vec![text(&self.loader), "--library-path".to_owned(), text(libraries), text(&program)]
    }

    /// Where a server finds its files; its messages and character sets are below `share`.
    fn places(&self, share: &Path, plugins: &str) -> Vec<String> {
        vec![
            format!("--basedir={}", self.root.join("usr").display()),
            format!("--lc-messages-dir={}", share.display()),
            format!("--character-sets-dir={}", share.join("charsets").display()),
            format!("--plugin-dir={}", self.root.join(plugins).display()),
        ]
    }
}

impl Programs {
    /// Looks for the programs of `flavour`; `root` is where they may have a folder of their own.
    ///
    /// # Errors
    /// When one of them is not there; the message says how to get it.
    pub fn find(flavour: Flavour, root: Option<&Path>) -> Result<Self, Error> {
        match (flavour, root) {
            (Flavour::Mariadb, None) => Self::mariadb_system(),
            (Flavour::Mariadb, Some(root)) => Self::mariadb_folder(root),
            (Flavour::Mysql, root) => {
                let root = root.unwrap_or_else(|| Path::new(MYSQL_ROOT));
                Self::mysql_folder(root).or_else(|missing| Self::mysql_system().ok_or(missing))
            }
        }
    }

    fn mariadb_system() -> Result<Self, Error> {
        let advice = "install the package mariadb-server (apt-get install mariadb-server)";
        Ok(Self {
            server: vec![installed("mariadbd", advice)?],
            client: vec![installed("mariadb", advice)?],
            install: Install::Script(vec![installed("mariadb-install-db", advice)?]),
            places: Vec::new(),
        })
    }

    fn mariadb_folder(root: &Path) -> Result<Self, Error> {
        let folder = unpacked(root, "usr/sbin/mariadbd", "scripts/server-folder mariadb")?;
        let share = root.join("usr/share/mariadb");
        Ok(Self {
            server: folder.program("usr/sbin/mariadbd"),
            client: folder.program("usr/bin/mariadb"),
            install: Install::Statements(SYSTEM_TABLES.iter().map(|t| share.join(t)).collect()),
            places: folder.places(&share, "usr/lib/mysql/plugin"),
        })
    }

    fn mysql_folder(root: &Path) -> Result<Self, Error> {
        let folder = unpacked(root, "usr/sbin/mysqld", "scripts/server-folder mysql")?;
        Ok(Self {
            server: folder.program("usr/sbin/mysqld"),
            client: folder.program("usr/bin/mysql"),
            install: Install::Server,
            places: folder.places(&root.join("usr/share/mysql"), "usr/lib/mysql/plugin"),
        })
    }

    /// A system's own MySQL. MariaDB's packages have a `mysqld` too, which is a link to `mariadbd`.
    fn mysql_system() -> Option<Self> {
        let server = on_this_machine("mysqld")?;
        let real = server.canonicalize().ok()?;
        if real.file_name() == Some(OsStr::new("mariadbd")) {
            return None;
        }
        Some(Self {
            server: vec![text(&server)],
            client: vec![text(&on_this_machine("mysql")?)],
            install: Install::Server,
            places: Vec::new(),
        })
    }
}

impl Clients {
    /// Looks for the client programs of `flavour`: MySQL's in their usual folder and in the system,
    /// MariaDB's in the system. What is called `mysqldump` there may be a link to MariaDB's.
    ///
    /// # Errors
    /// When one of them is not there; the message says how to get it.
    pub fn find(flavour: Flavour) -> Result<Self, Error> {
        let of_system = |[client, dump, log]: [&str; 3], advice: &str| {
            let program = |name| installed(name, advice).map(|path| vec![path]);
            Ok(Self { client: program(client)?, dump: program(dump)?, log: program(log)? })
        };
        match flavour {
            Flavour::Mariadb => {
                let advice = "install the package mariadb-client";
                of_system(["mariadb", "mariadb-dump", "mariadb-binlog"], advice)
            }
            Flavour::Mysql => {
                let root = Path::new(MYSQL_ROOT);
                let folder = unpacked(root, "usr/bin/mysqldump", "scripts/server-folder mysql");
                if let Ok(folder) = folder {
                    let [client, dump, log] = ["mysql", "mysqldump", "mysqlbinlog"]
                        .map(|name| folder.program(&format!("usr/bin/{name}")));
                    return Ok(Self { client, dump, log });
                }
                let advice = "install MySQL's client programs";
                let is_mariadb = on_this_machine("mysqldump")
                    .and_then(|path| path.canonicalize().ok())
                    .is_some_and(|path| path.file_name() == Some(OsStr::new("mariadb-dump")));
                if is_mariadb {
                    let program = "MySQL's mysqldump".to_owned();
                    return Err(Error::Missing { program, advice: advice.to_owned() });
                }
                of_system(["mysql", "mysqldump", "mysqlbinlog"], advice)
            }
        }
    }
}

/// The folder that `server` is in; `script` makes it.
fn unpacked<'a>(root: &'a Path, server: &str, script: &str) -> Result<Folder<'a>, Error> {
    let loader = loader(root).filter(|_| root.join(server).exists());
    let loader = loader.ok_or_else(|| Error::Missing {
        program: root.join(server).display().to_string(),
        advice: format!("run {script}, or name the folder with --root"),
    })?;
    Ok(Folder { root, loader })
}

/// The dynamic loader inside `root`.
fn loader(root: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(root.join("usr/lib")).ok()?;
    folders.flatten().find_map(|folder| {
        let files = std::fs::read_dir(folder.path()).ok()?;
        files.flatten().map(|file| file.path()).find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux-"))
        })
    })
}

fn installed(program: &str, advice: &str) -> Result<String, Error> {
    on_this_machine(program)
        .map(|path| text(&path))
        .ok_or_else(|| Error::Missing { program: program.to_owned(), advice: advice.to_owned() })
}

fn on_this_machine(program: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(program)).find(|path| path.exists())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
