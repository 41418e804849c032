//! What the book answers without any server.

use super::*;
use crate::accounts::rows::row;
use crate::config::User;
use crate::config::tls::ServerTls;
use crate::config::units::Secret;
use crate::health::cell::{Publisher, cell};

fn group(users: &[(&str, &str)]) -> Arc<Group> {
    let users = users.iter().map(|(name, password)| User {
        name: (*name).to_owned(),
        password: Secret::new((*password).to_owned()),
    });
    Arc::new(Group { name: Arc::from("main"), users: users.collect(), ..Group::default() })
}

fn monitor() -> Monitor {
    let password = Secret::new("monitor".to_owned());
    Monitor { user: "monitor".to_owned(), password, ..Monitor::default() }
}

fn book(users: &[(&str, &str)]) -> (AccountBook, Publisher) {
    let (cell, publisher) = cell(Topology::empty("main"));
    let trust = Trust::new(&ServerTls::default()).expect("nothing to read");
    let trust = Arc::new(ArcSwap::from_pointee(trust));
    (AccountBook::new(group(users), monitor(), cell, trust), publisher)
}

#[tokio::test]
async fn a_configured_user_needs_no_server() {
    let (book, _publisher) = book(&[("app", "secret"), ("open", "")]);
    let Lookup::Found(facts) = book.lookup(b"app", None).await else { panic!("it is configured") };
    assert_eq!(facts.double_sha1, Some(auth::double_sha1(b"secret")));
    assert_eq!(book.password(b"app"), Some(Password::new(b"secret".to_vec())));
    let Lookup::Found(open) = book.lookup(b"open", None).await else { panic!("it is configured") };
    assert!(open.empty && open.double_sha1.is_none());
    assert!(matches!(book.lookup(b"unlisted", None).await, Lookup::Unknown));
    book.reconfigure(group(&[]), monitor());
    assert!(matches!(book.lookup(b"app", None).await, Lookup::Unavailable(_)));
    assert_eq!(book.password(b"app"), None);
}

#[tokio::test]
async fn without_a_server_what_was_known_still_counts() {
    let (book, _publisher) = book(&[]);
    let Lookup::Unavailable(why) = book.lookup(b"app", None).await else { panic!("no server") };
    assert!(why.contains("no server has been probed yet"), "{why}");
    let known = row("%", b"app", String::new(), b"*hash".to_vec(), false);
    book.shared.cache.learn(b"app", Arc::from([known]), Instant::now());
    assert!(matches!(book.lookup(b"app", None).await, Lookup::Found(_)));
    book.invalidate(Some(b"app"));
    assert!(matches!(book.lookup(b"app", None).await, Lookup::Unavailable(_)));
}

#[test]
fn nothing_secret_is_printed() {
    let known = row("%", b"app", String::new(), b"*5BCB3E6AC345".to_vec(), false);
    let (book, _publisher) = book(&[("app", "secret")]);
    let printed = format!("{known:?} {book:?} {:?}", Lookup::Found(known.facts.clone()));
    assert!(!printed.contains("5BCB3E6AC345") && !printed.contains("secret"), "{printed}");
}
