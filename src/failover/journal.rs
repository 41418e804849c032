//! The file in which a keeper writes down what it is about to do.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::app::tasks;
use crate::failover::record::Record;

/// One group's file.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("cannot read or write {path}: {source}; set state_dir")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is not what was written.
    #[error("{path} is damaged ({source}): see which server takes the writes, then delete it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: serde_json::Error,
    },
}

impl Journal {
    /// The journal of this group in the state directory.
    #[must_use]
    pub fn of(state_dir: &Path, group: &str) -> Self {
        Self { path: state_dir.join(format!("keeper-{group}.json")) }
    }

    /// What was written last; an empty record where nothing was.
    ///
    /// # Errors
    /// When the file cannot be read, or is no record.
    pub fn read(&self) -> Result<Record, JournalError> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| JournalError::Damaged { path: self.path.clone(), source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Record::default()),
            Err(source) => Err(JournalError::Io { path: self.path.clone(), source }),
        }
    }

    /// Writes a record; when this returns it is on the disk, whole, or the former one is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn write(&self, record: &Record) -> Result<(), JournalError> {
        let (path, text) = (self.path.clone(), serde_json::to_vec_pretty(record));
        let failed = |source| JournalError::Io { path: self.path.clone(), source };
        let text = text.map_err(|error| failed(error.into()))?;
        tasks::blocking(move || replace(&path, &text)).await.map_err(failed)
    }
}

/// Puts a file in the place of another, all of it or nothing.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(directory)?;
    // A process that is being left may write, too, where several pointsman agree by the servers.
    let next = path.with_extension(format!("json.next-{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::record::Operation;

    #[tokio::test]
    async fn what_is_written_is_read_and_a_damaged_file_is_no_empty_one() {
        let scratch = tempfile::tempdir().expect("a scratch directory");
        let journal = Journal::of(scratch.path(), "main");
        assert_eq!(journal.read().expect("nothing yet"), Record::default());
        let record = Record {
            epoch: 7,
            primary: Some("db2".to_owned()),
            operation: Some(Operation::failover("db1")),
            ..Record::default()
        };
        journal.write(&record).await.expect("written");
        assert_eq!(journal.read().expect("read"), record);
        // As it was written before there were accounts for each replica.
        let early = r#"{"epoch":7,"primary":"db2","members":["db1","db2"],"lossless":true,
            "well_at":5,"operation":null,"failed_over_at":null}"#;
        fs::write(&journal.path, early).expect("an earlier one");
        let early = journal.read().expect("read");
        assert!(early.members.len() == 2 && early.accounts.is_empty() && early.lossless);
        fs::write(&journal.path, "{").expect("damaged");
        let error = journal.read().expect_err("damaged").to_string();
        assert!(error.contains("delete it"), "{error}");
    }
}
