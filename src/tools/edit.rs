//! Editing the configuration file in place: only what is meant changes, comments stay.
//!
//! The file is the source of truth. What comes out of an edit is resolved as a start would resolve
//! it before it is written, and it is written whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table, value};

use crate::app::tasks;
use crate::config::failover::FailoverMode;
use crate::tools::plan::VerbError;
use crate::tools::scene::{name_and_address, no_group};

/// A change of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A group with one server.
    Create {
        /// Where applications connect.
        listen: String,
        /// `NAME=ADDRESS`, or `ADDRESS`.
        server: String,
    },
    /// One server more.
    Add {
        /// `NAME=ADDRESS`, or `ADDRESS`.
        server: String,
        /// Its share of reads.
        weight: Option<u32>,
    },
    /// One server less, by its name or address.
    Remove {
        /// Which.
        server: String,
    },
    /// Another share of reads.
    SetWeight {
        /// Which server.
        server: String,
        /// Its share.
        weight: u32,
    },
    /// Whether the group is kept.
    SetMode(FailoverMode),
}

// === impls ===

/// The text of the file with the group changed; the same text where there is nothing to change.
///
/// # Errors
/// When the text is no TOML, there is no such group or server, or there is one already that is
/// something else.
pub fn edited(text: &str, group: &str, edit: &Edit) -> Result<String, VerbError> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        // Its whole text would show the line, which may hold a password.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        VerbError::Usage(format!("line {line}: {}", error.message()))
    })?;
    let root = document.as_table_mut();
    if let Edit::Create { listen, server } = edit {
        create(root, group, (listen, server))?;
        return Ok(document.to_string());
    }
    let table = root
        .get_mut("groups")
        .and_then(|groups| groups.get_mut(group))
        .and_then(Item::as_table_mut)
        .ok_or_else(|| no_group(group))?;
    match edit {
        Edit::Create { .. } => {}
        Edit::Add { server, weight } => add(table, group, server, *weight)?,
        Edit::Remove { server } => remove(table, group, server)?,
        Edit::SetWeight { server, weight } => {
            let at = position(table, group, server)?;
            if let Some(listed) = listed(table, group)?.get_mut(at) {
                set(listed, "weight", i64::from(*weight).into());
            }
        }
        Edit::SetMode(mode) => {
            let failover = table.entry("failover").or_insert_with(|| Item::Table(Table::new()));
            let failover = failover.as_table_mut().ok_or_else(|| {
                VerbError::Refused(format!("groups.{group}.failover is no table of its own"))
            })?;
            set(failover, "mode", mode.word().into());
        }
    }
    Ok(document.to_string())
}

fn create(root: &mut Table, group: &str, given: (&str, &str)) -> Result<(), VerbError> {
    let (listen, server) = given;
    let groups = root.entry("groups").or_insert_with(|| {
        let mut groups = Table::new();
        groups.set_implicit(true);
        Item::Table(groups)
    });
    let groups =
        groups.as_table_mut().ok_or_else(|| VerbError::Refused("groups is no table".to_owned()))?;
    if let Some(there) = groups.get_mut(group) {
        let table = there.as_table_mut().ok_or_else(|| no_group(group))?;
        let same = table.get("listen").and_then(Item::as_str) == Some(listen);
        return match same && position(table, group, server).is_ok() {
            true => Ok(()),
            false => {
                let why = format!("there is a group {group} already; group add adds to it");
                Err(VerbError::Refused(why))
            }
        };
    }
    let mut table = Table::new();
    table.insert("listen", value(listen));
    let mut servers = ArrayOfTables::new();
    servers.push(entry(server, None)?);
    table.insert("servers", Item::ArrayOfTables(servers));
    groups.insert(group, Item::Table(table));
    Ok(())
}

fn entry(server: &str, weight: Option<u32>) -> Result<Table, VerbError> {
    let (name, address) = name_and_address(server)?;
    let address = address.ok_or_else(|| {
        VerbError::Usage(format!("{server:?} has no address: write NAME=HOST:PORT"))
    })?;
    let mut table = Table::new();
    table.insert("address", value(address));
    if let Some(name) = name {
        table.insert("name", value(name));
    }
    if let Some(weight) = weight {
        table.insert("weight", value(i64::from(weight)));
    }
    Ok(table)
}

fn add(table: &mut Table, group: &str, server: &str, weight: Option<u32>) -> Result<(), VerbError> {
    let new = entry(server, weight)?;
    let list = listed(table, group)?;
    let text = |table: &Table, key| table.get(key).and_then(Item::as_str).map(str::to_owned);
    let is_it = |at: &Table| text(at, "address") == text(&new, "address");
    if let Some(there) = list.iter_mut().find(|at| is_it(at)) {
        for (key, item) in new.iter().filter(|(key, _)| *key != "address") {
            if let Some(value) = item.as_value() {
                set(there, key, value.clone());
            }
        }
        return Ok(());
    }
    list.push(new);
    Ok(())
}

fn remove(table: &mut Table, group: &str, server: &str) -> Result<(), VerbError> {
    let list = listed(table, group)?;
    if let Some(at) = index_of(list, server)? {
        list.remove(at);
    }
    Ok(())
}

/// Where a server stands in the list.
fn position(table: &mut Table, group: &str, server: &str) -> Result<usize, VerbError> {
    index_of(listed(table, group)?, server)?.ok_or_else(|| {
        VerbError::Usage(format!("group {group} lists no server {server:?}; group add adds it"))
    })
}

fn index_of(list: &ArrayOfTables, server: &str) -> Result<Option<usize>, VerbError> {
    let (name, address) = name_and_address(server)?;
    Ok(list.iter().position(|at| {
        let text = |key| at.get(key).and_then(Item::as_str);
        match address {
            Some(address) => text("address") == Some(address),
            None => name.is_some() && text("name") == name,
        }
    }))
}

/// The servers that the group lists.
fn listed<'a>(table: &'a mut Table, group: &str) -> Result<&'a mut ArrayOfTables, VerbError> {
    let finds = table.contains_key("seeds");
    table.get_mut("servers").and_then(Item::as_array_of_tables_mut).ok_or_else(|| {
        VerbError::Refused(match finds {
            true => format!(
                "group {group} finds its servers by its seeds; to name and weigh them write \
                 [[groups.{group}.servers]] in place of seeds"
            ),
            false => format!("group {group} has no [[groups.{group}.servers]]"),
        })
    })
}

/// Sets a key, and leaves what stands around its value.
fn set(table: &mut Table, key: &str, new: toml_edit::Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(there) => {
            let decor = there.decor().clone();
            *there = new;
            *there.decor_mut() = decor;
        }
        None => drop(table.insert(key, Item::Value(new))),
    }
}

/// The lines that differ, with `-` and `+` before them. Passwords stand in none of what we edit.
#[must_use]
pub fn changes(before: &str, after: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let same = old.iter().zip(&new).take_while(|(old, new)| old == new).count();
    let (old, new) = (old.get(same..).unwrap_or_default(), new.get(same..).unwrap_or_default());
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let gone = old.iter().take(old.len() - tail).map(|line| format!("-{line}"));
    gone.chain(new.iter().take(new.len() - tail).map(|line| format!("+{line}"))).collect()
}

/// Puts a text in the place of the file, whole or not at all, with the file's mode.
///
/// # Errors
/// When it cannot be written.
pub async fn write(path: &Path, text: &str) -> Result<String, VerbError> {
    let (to, text) = (path.to_path_buf(), text.to_owned());
    let written = tasks::blocking(move || replace(&to, &text)).await;
    let failed = |error| VerbError::Failed(format!("cannot write {}: {error}", path.display()));
    written.map_err(failed)?;
    Ok("written".to_owned())
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    // The file that is meant, where the path is a link to it.
    let path = fs::canonicalize(path)?;
    let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
    let mut next = path.clone().into_os_string();
    next.push(".next");
    let next = PathBuf::from(next);
    let _ = fs::remove_file(&next);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&next, &path)?;
    File::open(path.parent().unwrap_or_else(|| Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# ours\n[monitor]\nuser = \"m\"   # who looks\npassword = \"hunter2\"\n";

    fn edit(text: &str, edit: Edit) -> String {
        edited(text, "main", &edit).expect("an edit")
    }

    fn created() -> String {
        let (listen, server) = ("127.0.0.1:6033".to_owned(), "db1=127.0.0.1:3306".to_owned());
        edit(BEFORE, Edit::Create { listen, server })
    }

    #[test]
    fn a_group_grows_and_shrinks_and_what_is_not_meant_stays() {
        let one = created();
        assert!(one.starts_with(BEFORE), "{one}");
        let add = |weight| Edit::Add { server: "db2=127.0.0.1:3307".to_owned(), weight };
        let two = edit(&one, add(Some(50)));
        assert_eq!(
            changes(&one, &two),
            [
                "+",
                "+[[groups.main.servers]]",
                "+address = \"127.0.0.1:3307\"",
                "+name = \"db2\"",
                "+weight = 50"
            ]
        );
        assert_eq!(edit(&two, add(Some(50))), two, "there is nothing to do");
        let commented = two.replace("weight = 50", "weight = 50 # slow");
        let set = Edit::SetWeight { server: "db2".to_owned(), weight: 7 };
        let weighed = edit(&commented, set);
        assert_eq!(changes(&commented, &weighed), ["-weight = 50 # slow", "+weight = 7 # slow"]);
        let remove = Edit::Remove { server: "127.0.0.1:3307".to_owned() };
        assert_eq!(edit(&two, remove.clone()), one);
        assert_eq!(edit(&one, remove), one, "there is nothing to do");
    }

    #[test]
    fn a_group_is_kept_or_not() {
        let one = created();
        let kept = edit(&one, Edit::SetMode(FailoverMode::Auto));
        assert!(kept.ends_with("[groups.main.failover]\nmode = \"auto\"\n"), "{kept}");
        assert_eq!(edit(&kept, Edit::SetMode(FailoverMode::Auto)), kept);
        let left = edit(&kept, Edit::SetMode(FailoverMode::Follow));
        assert_eq!(changes(&kept, &left), ["-mode = \"auto\"", "+mode = \"follow\""]);
    }

    #[test]
    fn what_cannot_be_edited_is_said_without_a_password() {
        let add = Edit::Add { server: "127.0.0.1:3307".to_owned(), weight: None };
        let seeds = "[groups.main]\nseeds = [\"127.0.0.1:3306\"]\n";
        let refused = edited(seeds, "main", &add).expect_err("seeds").to_string();
        assert!(refused.contains("in place of seeds"), "{refused}");
        let refused = edited("[monitor]\npassword = \"hunter2\n", "main", &add);
        let refused = refused.expect_err("no TOML").to_string();
        assert!(refused.starts_with("line 2") && !refused.contains("hunter2"), "{refused}");
        assert!(edited(BEFORE, "main", &add).is_err());
    }
}
