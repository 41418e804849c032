//! Refusals as a table, defaults, and the two files that we ship.

use proptest::prelude::*;

use super::*;
use crate::config::cluster::Cluster;

const MINIMAL: &str = include_str!("../../../config/minimal.toml");
const EXAMPLE: &str = include_str!("../../../config/example.toml");
const RAW: &str = include_str!("../raw.rs");

fn no_files(path: &Path) -> Result<Secret, String> {
    Err(format!("a file that exists, unlike {}", path.display()))
}

fn check(text: &str) -> Result<Config, Refused> {
    let file = raw::parse(text).unwrap_or_else(|error| panic!("{error} in\n{text}"));
    resolve(&file, 2, &no_files)
}

/// The minimal file with one line put into the section that begins with `section`.
fn minimal_with(section: &str, line: &str) -> String {
    if section.is_empty() {
        return format!("{line}\n{MINIMAL}");
    }
    MINIMAL.replace(&format!("{section}\n"), &format!("{section}\n{line}\n"))
}

#[test]
fn the_minimal_file_resolves_to_the_documented_defaults() {
    let config = check(MINIMAL).expect("the minimal file is valid");
    assert_eq!(config.monitor.interval, Duration::from_millis(500));
    assert_eq!(config.boot.workers, 2);
    assert_eq!(config.boot.admin_password, None);
    let [group] = config.groups.as_slice() else { panic!("one group") };
    assert_eq!(&*group.name, "main");
    assert_eq!(group.consistency, Consistency::Session);
    assert_eq!(group.hold, Duration::from_secs(15));
    assert_eq!(group.max_clients, 10_000);
    assert_eq!(group.inspect_limit, 1 << 20);
    assert_eq!(&*group.seeds[0], "127.0.0.1:3306");
    let named = Group {
        name: group.name.clone(),
        listen: group.listen.clone(),
        seeds: group.seeds.clone(),
        ..Group::default()
    };
    assert_eq!(**group, named);
}

#[test]
fn the_example_shows_the_real_defaults() {
    let example = check(EXAMPLE).expect("the example is valid");
    let minimal = check(MINIMAL).expect("the minimal file is valid");
    assert_eq!(example.entries(), minimal.entries());
    assert_eq!(example, minimal);
}

#[test]
fn the_example_mentions_every_key() {
    // Inner attributes and doc comments aside, a field of raw.rs is a line `pub name: Type,`.
    let before_values = RAW.split("/// One value of whatever type").next().expect("a first part");
    let mut keys = 0;
    for line in before_values.lines() {
        let Some(field) = line.trim().strip_prefix("pub ") else { continue };
        let Some((key, _)) = field.split_once(": ") else { continue };
        keys += 1;
        let shown = EXAMPLE.lines().any(|line| {
            let line = line.trim_start_matches("# ");
            line.starts_with(&format!("{key} = "))
                || line.starts_with(&format!("[{key}"))
                || line.starts_with(&format!("[[{key}"))
                || line.starts_with(&format!("[groups.main.{key}]"))
                || line.starts_with(&format!("[[groups.main.{key}]]"))
        });
        assert!(shown, "config/example.toml does not mention {key}");
    }
    assert!(keys > 40, "only {keys} keys were found in raw.rs");
}

#[test]
fn what_the_example_comments_out_is_valid_too() {
    let keys = ["admin_password", "workers", "proxy_protocol_from", "[[", "address", "name"];
    let more = ["weight", "role", "groups", "password = \"secret\""];
    let cluster = ["[cluster]", "etcd = ", "id = ", "lease = ", "user = "];
    let text: Vec<&str> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with("admin_password_file") => line,
            Some(rest) if keys.iter().chain(&more).any(|key| rest.starts_with(key)) => rest,
            Some(rest) if cluster.iter().any(|key| rest.starts_with(key)) => rest,
            Some(_) | None => line,
        })
        .filter(|line| !line.starts_with("seeds"))
        .collect();
    let config = check(&text.join("\n")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(&*config.groups[0].servers[0].name, "db1");
    assert_eq!(config.groups[0].servers[0].weight, DEFAULT_WEIGHT);
    assert_eq!(config.groups[0].users[0].name, "app");
    assert!(config.boot.admin_password.is_some());
    let cluster = config.boot.cluster.as_ref().expect("a cluster");
    assert_eq!((cluster.etcd.len(), cluster.id.as_deref()), (3, Some("pm1")));
    assert_eq!((&*cluster.name, cluster.lease), (Cluster::NAME, Cluster::LEASE));
}

#[test]
fn a_wrong_value_is_refused_with_key_value_and_what_is_allowed() {
    let table: &[(&str, &str, &str, &str)] = &[
        ("", "drain_timeout = 30", "drain_timeout = 30", "\"15s\""),
        ("", "workers = 0", "workers = 0", "from 1 to 256"),
        ("", "workers = \"all\"", "workers = \"all\"", "whole number"),
        ("", "log_format = \"xml\"", "log_format = \"xml\"", "\"text\", \"json\""),
        ("", "state_dir = \"data\"", "state_dir = \"data\"", "absolute"),
        ("", "admin_user = \"\"", "admin_user = \"\"", "not empty"),
        ("", "admin_password = \"\"", "admin_password = \"\"", "generated"),
        ("", "admin_password = 5", "admin_password = (hidden)", "quotes"),
        ("", "cluster = {}", "cluster.etcd = nothing", "http://host:port"),
        ("", "cluster = { etcd = \"db1\" }", "cluster.etcd = \"db1\"", "http://host:port"),
        ("", "cluster = { etcd = \"http:///x\" }", "\"http:///x\"", "http://host:port"),
        ("", "cluster = { etcd = \"https://e:2379\" }", "cluster.tls_ca = nothing", "authority"),
        ("", "cluster = { etcd = \"http://e:1\", tls_ca = \"/c\" }", "http://e:1", "https"),
        ("", "cluster = { etcd = \"http://e:1\", lease = \"3500ms\" }", "3500ms", "whole"),
        ("", "cluster = { etcd = \"http://e:1\", lease = \"2s\" }", "\"2s\"", "from 3s"),
        ("", "cluster = { etcd = \"http://e:1\", name = \"a/b\" }", "\"a/b\"", "letters"),
        ("", "cluster = { etcd = \"http://e:1\", user = \"u\" }", "cluster.user", "password"),
        ("", "cluster = { etcd = \"http://e:1\", password = \"x\" }", "(hidden)", "cluster.user"),
        ("", "cluster = { locks = 1, etcd = \"http://e:1\" }", "locks = 1", "true or false"),
        ("", "cluster = { locks = true, lease = \"2s\" }", "\"2s\"", "from 3s"),
        ("", "cluster = { locks = true, etcd = \"http://e:1\" }", "cluster.etcd", "either etcd"),
        ("", "cluster = { locks = true, user = \"u\" }", "cluster.user", "either etcd"),
        ("", "cluster = { locks = true, tls_ca = \"/c\" }", "cluster.tls_ca", "either etcd"),
        ("[monitor]", "interval = \"1ms\"", "monitor.interval = \"1ms\"", "from 50ms to 1m"),
        ("[monitor]", "interval = 500", "monitor.interval = 500", "unit"),
        ("[monitor]", "fall = -1", "monitor.fall = -1", "from 1 to 100"),
        ("[monitor]", "rise = 1.5", "monitor.rise = 1.5", "whole number"),
        ("[groups.main]", "hold = true", "groups.main.hold = true", "unit"),
        ("[groups.main]", "hold = [1]", "groups.main.hold = a TOML array", "unit"),
        ("[groups.main]", "consistency = \"strict\"", "\"strict\"", "\"session\", \"eventual\""),
        ("[groups.main]", "inspect_limit = 65536", "inspect_limit = 65536", "\"64KiB\""),
        ("[groups.main]", "inspect_limit = \"2GiB\"", "\"2GiB\"", "to 1GiB"),
        ("[groups.main]", "primary_read_percent = 101", "= 101", "from 0 to 100"),
        ("[groups.main]", "max_clients = 0", "max_clients = 0", "from 1 to"),
        ("[groups.main]", "proxy_protocol_to_servers = \"no\"", "\"no\"", "true or false"),
        ("[groups.main]", "proxy_protocol_from = \"lb\"", "\"lb\"", "a network"),
        ("[groups.main]", "proxy_protocol_from = [\"10.0.0.0/40\"]", "/40", "a network"),
    ];
    for (section, line, shown, allowed) in table {
        let refused = check(&minimal_with(section, line)).expect_err(line);
        let [refusal] = refused.0.as_slice() else { panic!("{line}: {refused}") };
        let text = refusal.to_string();
        assert!(text.contains(shown), "{line}: {text}");
        assert!(text.contains(allowed), "{line}: {text}");
    }
}

#[test]
fn wrong_addresses_are_refused() {
    let table: &[(&str, &str, &str)] = &[
        ("\"127.0.0.1:6032\"", "\"0.0.0.0:6032\"", "loopback"),
        ("\"127.0.0.1:6032\"", "\"localhost:6032\"", "an IP address and a port"),
        ("\"127.0.0.1:9104\"", "\"/run/http.sock\"", "an IP address and a port"),
        ("\"127.0.0.1:9104\"", "\"127.0.0.1:6033\"", "nothing else listens on"),
        ("\"127.0.0.1:6033\"", "[]", "an IP address and a port"),
        ("\"127.0.0.1:6033\"", "6033", "an IP address and a port"),
        ("[\"127.0.0.1:3306\"]", "[\"127.0.0.1\"]", "host:port"),
        ("[\"127.0.0.1:3306\"]", "[]", "one server at least"),
        ("[groups.main]", "[groups.\"a.b\"]", "letters"),
    ];
    for (from, to, allowed) in table {
        let text = MINIMAL.replace(from, to);
        assert_ne!(text, MINIMAL, "{from} is not in the minimal file");
        let refused = check(&text).expect_err(to);
        assert_eq!(refused.0.len(), 1, "{to}: {refused}");
        assert!(refused.to_string().contains(allowed), "{to}: {refused}");
    }
}

#[test]
fn all_refusals_are_collected() {
    let refused = check("workers = 0\ndrain_timeout = 1\n").expect_err("much is wrong");
    let keys: Vec<_> = refused.0.iter().map(|refusal| refusal.key.as_str()).collect();
    let expected = ["workers", "drain_timeout", "monitor.user", "monitor.password", "groups"];
    assert_eq!(keys, expected, "{refused}");
}

#[test]
fn seeds_and_servers_exclude_each_other_and_servers_are_distinct() {
    let one = "[[groups.main.servers]]\naddress = \"db1:3306\"\nname = \"a\"\n";
    let both = check(&format!("{MINIMAL}\n{one}")).expect_err("both");
    assert!(both.to_string().contains("either seeds"), "{both}");
    let fixed = MINIMAL.replace("seeds  = [\"127.0.0.1:3306\"]", "");
    let config = check(&format!("{fixed}\n{one}")).expect("a fixed list");
    assert_eq!(config.groups[0].servers[0].role, RoleHint::Auto);
    let twice = check(&format!("{fixed}\n{one}\n{one}")).expect_err("twice the same");
    assert_eq!(twice.0.len(), 2, "{twice}");
    let no_address = format!("{fixed}\n[[groups.main.servers]]\nweight = 20000\n");
    let refused = check(&no_address).expect_err("no address");
    assert!(refused.to_string().contains("servers[0].address"), "{refused}");
}

#[test]
fn users_belong_to_all_groups_or_to_the_named_ones() {
    let second = "[groups.second]\nlisten = \"127.0.0.1:6034\"\nseeds = \"db1:3306\"\n";
    let users = "[[users]]\nname = \"a\"\npassword = \"p\"\n\
                 [[users]]\nname = \"b\"\npassword = \"\"\ngroups = \"second\"\n";
    let config = check(&format!("{MINIMAL}\n{second}\n{users}")).expect("valid");
    assert_eq!(config.groups[0].users.len(), 1);
    assert_eq!(config.groups[1].users.len(), 2);
    let only = "[[users]]\nname = \"b\"\npassword = \"\"\ngroups = \"second\"\n";
    let refused = check(&format!("{MINIMAL}\n{second}\n{only}")).expect_err("nobody for main");
    assert!(refused.to_string().contains("none for groups.main"), "{refused}");
    let wrong = "[[users]]\ngroups = [\"third\"]\n";
    let refused = check(&format!("{MINIMAL}\n{wrong}")).expect_err("a user without anything");
    let text = refused.to_string();
    for part in ["users[0].name", "users[0].password", "users[0].groups", "main"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn password_files_are_read_and_their_trouble_is_told() {
    let text = MINIMAL.replace("password = \"monitor\"", "password_file = \"m.pw\"");
    let file = raw::parse(&text).expect("valid TOML");
    let read = |path: &Path| {
        assert_eq!(path, Path::new("m.pw"));
        Ok(Secret::new("from the file".to_owned()))
    };
    let config = resolve(&file, 1, &read).expect("valid");
    assert_eq!(config.monitor.password.reveal(), "from the file");
    let refused = check(&text).expect_err("no such file");
    assert_eq!(refused.0.len(), 1, "{refused}");
    assert!(refused.to_string().contains("monitor.password_file = \"m.pw\""), "{refused}");
    let both = text.replacen("password_file", "password = \"hunter2\"\npassword_file", 1);
    let refused = check(&both).expect_err("both given");
    assert!(refused.to_string().contains("either"), "{refused}");
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
}

#[test]
fn shown_entries_mask_passwords_and_mention_every_setting() {
    let users = "[[users]]\nname = \"app\"\npassword = \"hunter2\"\n";
    let text = format!("admin_password = \"hunter2\"\n{MINIMAL}\n{users}");
    let entries = check(&text.replace("\"monitor\" ", "\"hunter2\" ")).expect("valid").entries();
    let shown: Vec<_> =
        entries.iter().map(|entry| format!("{} = {}", entry.key, entry.value)).collect();
    assert!(!shown.concat().contains("hunter2"), "{shown:#?}");
    assert!(shown.contains(&"groups.main.hold = 15s".to_owned()), "{shown:#?}");
    assert!(shown.contains(&"groups.main.users.app = (hidden)".to_owned()), "{shown:#?}");
}

#[test]
fn what_a_reload_cannot_apply_is_named() {
    let second = "[groups.second]\nlisten = \"127.0.0.1:6034\"\nseeds = \"db1:3306\"\n";
    let table: &[(String, &[&str])] = &[
        (MINIMAL.to_owned(), &[]),
        (minimal_with("[groups.main]", "hold = \"5s\""), &[]),
        (minimal_with("[monitor]", "fall = 9"), &[]),
        (minimal_with("", "workers = 7"), &["workers"]),
        (minimal_with("", "admin_password = \"hunter2\""), &["admin_password"]),
        (MINIMAL.replace(":6033", ":7033"), &["groups.main.listen"]),
        (format!("{MINIMAL}\n{second}"), &["groups.second.listen"]),
        (
            MINIMAL.replace("groups.main", "groups.other"),
            &["groups.main.listen", "groups.other.listen"],
        ),
    ];
    let before = check(MINIMAL).expect("valid");
    for (text, keys) in table {
        let after = check(text).expect("valid");
        assert_eq!(before.needs_restart(&after), *keys, "{text}");
    }
    let secret = |password: &str| {
        check(&minimal_with("", &format!("admin_password = \"{password}\""))).expect("valid")
    };
    assert_eq!(secret("one").needs_restart(&secret("two")), ["admin_password"]);
}

#[test]
fn groups_that_several_keep_need_an_account_that_all_know() {
    let cluster = "[cluster]\netcd = [\"http://10.0.0.1:2379\", \"http://10.0.0.2:2379\"]\n\
                   user = \"pm\"\npassword = \"hunter2\"\n";
    let kept = "[groups.main.failover]\nmode = \"auto\"\n";
    let account = "replication_user = \"repl\"\nreplication_password = \"hunter2\"\n";
    let refused = check(&format!("{MINIMAL}\n{cluster}{kept}")).expect_err("no account");
    assert!(refused.to_string().contains("failover.replication_user = nothing"), "{refused}");
    let config = check(&format!("{MINIMAL}\n{cluster}{kept}{account}")).expect("valid");
    let found = config.boot.cluster.as_ref().expect("a cluster");
    assert_eq!((found.etcd.len(), found.lease), (2, Duration::from_secs(3)));
    assert!(!format!("{:?}", config.entries()).contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
    let other = format!("{MINIMAL}\n{cluster}{kept}{account}").replacen("hunter2", "other", 1);
    let other = check(&other).expect("valid");
    assert_eq!(config.needs_restart(&other), ["cluster.password"]);
    let alone = check(MINIMAL).expect("valid");
    assert!(alone.needs_restart(&other).contains(&"cluster.etcd".to_owned()));
}

#[test]
fn who_agrees_by_locks_needs_the_list_of_servers_that_decide() {
    let cluster = "[cluster]\nlocks = true\n[groups.main.failover]\nmode = \"auto\"\n\
                   replication_user = \"repl\"\nreplication_password = \"hunter2\"\n";
    let refused = check(&format!("{MINIMAL}\n{cluster}")).expect_err("no list");
    assert!(refused.to_string().contains("groups.main.servers = nothing"), "{refused}");
    let list = "[[groups.main.servers]]\naddress = \"127.0.0.1:3306\"\n";
    let text = MINIMAL.lines().filter(|line| !line.starts_with("seeds"));
    let text: Vec<&str> = text.chain([list, cluster]).collect();
    let config = check(&text.join("\n")).expect("valid");
    let found = config.boot.cluster.as_ref().expect("a cluster");
    assert!(found.locks && found.etcd.is_empty());
    assert_eq!(found.lease, Cluster::LEASE);
}

/// A value of any type in place of the one that stands behind a key.
fn any_value() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9:./_-]{0,20}".prop_map(|text| format!("{text:?}")),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<bool>().prop_map(|flag| flag.to_string()),
        (-1e9..1e9f64).prop_map(|number| format!("{number:?}")),
        "[0-9]{1,22}(ms|s|m|h|KiB|MiB|GiB|B)".prop_map(|text| format!("{text:?}")),
        "(10.0.0.1|::1|[a-z]{1,5})[:/][0-9]{0,6}".prop_map(|text| format!("[{text:?}]")),
        Just("{ a = 1 }".to_owned()),
        Just("[[], [1]]".to_owned()),
        Just("1979-05-27".to_owned()),
    ]
}

proptest! {
    #[test]
    fn no_value_of_any_key_makes_it_panic(line in 0..EXAMPLE.lines().count(), value in any_value())
    {
        let replaced = |(at, text): (usize, &str)| match text.trim_start_matches("# ").split_once(" = ")
        {
            Some((key, _)) if at == line && !key.contains(' ') => format!("{key} = {value}"),
            Some(_) | None => text.to_owned(),
        };
        let text: Vec<String> = EXAMPLE.lines().enumerate().map(replaced).collect();
        if let Ok(file) = raw::parse(&text.join("\n")) {
            match resolve(&file, 2, &no_files) {
                Ok(config) => prop_assert!(!config.entries().is_empty()),
                Err(refused) => prop_assert!(!refused.to_string().is_empty()),
            }
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\PC\n]{0,200}") {
        let _ = raw::parse(&text);
    }
}
