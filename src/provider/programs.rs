//! Finding the server and client programs of each family, and how to start them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::provider::{Error, Flavour};

/// Where `scripts/mysql-sid` puts MySQL unless told otherwise.
pub const MYSQL_ROOT: &str = "/var/tmp/pointsman-mysql";

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
    /// What makes an empty data directory: MariaDB's script; `None` where the server does it.
    pub installer: Option<Vec<String>>,
    /// Options that a server from a folder of its own needs to find its files.
    pub places: Vec<String>,
}

impl Programs {
    /// Looks for the programs of `flavour`; `mysql_root` is where MySQL may have a folder of its
    /// own.
    ///
    /// # Errors
    /// When one of them is not there; the message says how to get it.
    pub fn find(flavour: Flavour, mysql_root: Option<&Path>) -> Result<Self, Error> {
        match flavour {
            Flavour::Mariadb => Self::mariadb(),
            Flavour::Mysql => {
                let root = mysql_root.unwrap_or_else(|| Path::new(MYSQL_ROOT));
                Self::mysql_folder(root).or_else(|missing| Self::mysql_system().ok_or(missing))
            }
        }
    }

    fn mariadb() -> Result<Self, Error> {
        let advice = "install the package mariadb-server (apt-get install mariadb-server)";
        Ok(Self {
            server: vec![installed("mariadbd", advice)?],
            client: vec![installed("mariadb", advice)?],
            installer: Some(vec![installed("mariadb-install-db", advice)?]),
            places: Vec::new(),
        })
    }

    /// MySQL unpacked into a folder: its programs run under the folder's own loader, as they need a
    /// newer libc than the system may have.
    fn mysql_folder(root: &Path) -> Result<Self, Error> {
        let missing = || Error::Missing {
            program: format!("mysqld below {}", root.display()),
            advice: "run scripts/mysql-sid, or name the folder with --mysql-root".to_owned(),
        };
        let server = root.join("usr/sbin/mysqld");
        if !server.exists() {
            return Err(missing());
        }
        let loader = loader(root).ok_or_else(missing)?;
        let libraries = loader.parent().unwrap_or(root).to_path_buf();
        let under_loader = |program: PathBuf| {
            vec![text(&loader), "--library-path".to_owned(), text(&libraries), text(&program)]
        };
        let share = root.join("usr/share/mysql");
        Ok(Self {
            server: under_loader(server),
            client: under_loader(root.join("usr/bin/mysql")),
            installer: None,
            places: vec![
                format!("--basedir={}", root.join("usr").display()),
                format!("--lc-messages-dir={}", share.display()),
                format!("--character-sets-dir={}", share.join("charsets").display()),
                format!("--plugin-dir={}", root.join("usr/lib/mysql/plugin").display()),
            ],
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
            installer: None,
            places: Vec::new(),
        })
    }
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
