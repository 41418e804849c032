//! What a sandbox leaves in its folder for the next command: which servers, where, in which role.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::provider::{Durability, Error, Flavour, Host};

/// The content of `state.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// Family of the servers.
    pub flavour: Flavour,
    /// The server that was made the primary last, by us.
    pub primary: String,
    /// Server by server, the first primary first.
    pub servers: Vec<Entry>,
    /// When a commit reaches the disk.
    pub durability: Durability,
    /// Further server options.
    pub options: Vec<String>,
    /// The folder that the programs are in, unless it is the usual place.
    pub root: Option<PathBuf>,
}

/// One server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Its name: `db1`, `db2` ...
    pub name: String,
    /// Where it lives.
    #[serde(default)]
    pub host: Host,
    /// Its TCP port there.
    pub port: u16,
    /// Unix socket.
    pub socket: PathBuf,
    /// Its `server_id`.
    pub server_id: u32,
    /// Data source name of the application's account.
    pub dsn: String,
}

impl State {
    /// Reads the state of the sandbox in `dir`.
    ///
    /// # Errors
    /// When there is none, or it is not readable.
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("state.json");
        let failed =
            |source| Error::File { what: "no sandbox: cannot read", path: path.clone(), source };
        let text = std::fs::read_to_string(&path).map_err(failed)?;
        serde_json::from_str(&text).map_err(|error| failed(error.into()))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// When the folder is not writable.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        let path = dir.join("state.json");
        let next = dir.join("state.json.next");
        serde_json::to_vec_pretty(self)
            .map_err(std::io::Error::from)
            .and_then(|text| std::fs::write(&next, text))
            .and_then(|()| std::fs::rename(&next, &path))
            .map_err(|source| Error::File { what: "cannot write", path, source })
    }
}
