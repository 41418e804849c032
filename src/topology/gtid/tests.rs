//! The algebra against a naive set of single transactions, and the texts that servers print.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "44444444-71ca-11e1-9e33-c80aa9429562";

fn mysql(text: &str) -> GtidSet {
    GtidSet::parse_mysql(text).unwrap_or_else(|| panic!("refused: {text}"))
}

fn mariadb(text: &str) -> GtidSet {
    GtidSet::parse_mariadb(text).unwrap_or_else(|| panic!("refused: {text}"))
}

#[test]
fn mysql_text_becomes_canonical() {
    let table = [
        (String::new(), String::new()),
        (format!("{A}:1-5"), format!("{A}:1-5")),
        (format!("{A}:5:1-4"), format!("{A}:1-5")),
        (format!("{A}:1-3:2-9:11"), format!("{A}:1-9:11")),
        (format!("{B}:7,\n{A}:1"), format!("{A}:1,{B}:7")),
        (format!("{A}:1-5:tag:7-9"), format!("{A}:1-5:tag:7-9")),
        (format!("{A}:Tag:7,{A}:TAG:8"), format!("{A}:tag:7-8")),
        (format!("{A}:b:1:a:2:3"), format!("{A}:a:2-3:b:1")),
        (format!(" {} : 3 ", A.to_uppercase()), format!("{A}:3")),
        (format!("{A}:9223372036854775807"), format!("{A}:9223372036854775807")),
        (format!("{A}:1-18446744073709551615"), format!("{A}:1-18446744073709551615")),
    ];
    for (text, canonical) in table {
        assert_eq!(mysql(&text).to_string(), canonical, "from {text}");
    }
}

#[test]
fn malformed_text_is_refused() {
    let long = "t".repeat(33);
    let mysql_texts = [
        "x",
        ":1",
        A,
        &format!("{A}:"),
        &format!("{A}:0"),
        &format!("{A}:5-3"),
        &format!("{A}:1-"),
        &format!("{A}:+1"),
        &format!("{A}:1--2"),
        &format!("{A}:tag"),
        &format!("{A}:1:tag"),
        &format!("{A}:tag:other:1"),
        &format!("{A}:9tag:1"),
        &format!("{A}:{long}:1"),
        &format!("{A}:1,,{B}:1"),
        &format!("{A}:1,"),
        &format!("{A}:18446744073709551616"),
        &A.replace('-', "_"),
        "0-1-7",
    ];
    for text in mysql_texts {
        assert_eq!(GtidSet::parse_mysql(text), None, "{text}");
    }
    for text in ["0-1", "0-1-2-3", "a-1-1", "0-1--1", "0-+1-1", "4294967296-1-1", "0-1-1,", "-"] {
        assert_eq!(GtidSet::parse_mariadb(text), None, "{text}");
        assert_eq!(MariaDbState::parse(text), None, "{text}");
    }
}

#[test]
fn mariadb_positions_compare_per_domain() {
    let table = [
        ("0-1-7", "0-1-7", true),
        ("0-1-7", "0-2-6", true),
        ("0-1-7", "0-1-8", false),
        ("0-1-7", "1-1-1", false),
        ("0-1-7,1-1-1", "1-1-1", true),
        ("0-1-7,1-1-1", "0-1-1,1-1-2", false),
        ("0-1-18446744073709551615", "0-1-18446744073709551614", true),
        ("", "0-1-1", false),
        ("0-1-1", "", true),
        ("", "", true),
    ];
    for (have, want, expected) in table {
        assert_eq!(mariadb(have).contains(&mariadb(want)), expected, "{have} contains {want}");
    }
    assert_eq!(mariadb("2-1-1,0-1-7,0-2-9").to_string(), "0-2-9,2-1-1");
    assert_eq!(mariadb("0-1-7,2-1-1").domains_or_sources(), 2);
}

#[test]
fn errant_transactions_are_found_by_state_not_by_sequence() {
    // Measured: the new primary's position says 60, so 59 looks contained; its state shows that
    // server 2's transactions ended at 58.
    let old_primary = mariadb("0-2-59");
    assert!(mariadb("0-1-60").contains(&old_primary));
    let state = MariaDbState::parse("0-2-58,0-1-60").expect("well-formed");
    assert!(!state.contains(&old_primary));
    assert!(state.contains(&mariadb("0-2-58")));
    assert!(state.contains(&mariadb("")));
    assert!(!state.contains(&mariadb("1-1-1")));
    assert!(!state.contains(&mysql(&format!("{A}:1"))));
}

#[test]
fn families_never_contain_each_other() {
    let (maria, my) = (mariadb("0-1-7"), mysql(&format!("{A}:1-5")));
    assert!(!maria.contains(&my));
    assert!(!my.contains(&maria));
    let mut both = maria.clone();
    both.union(&my);
    for set in [&maria, &my, &both] {
        assert!(!both.contains(set) && !set.contains(&both));
    }
    assert!(!both.is_empty());
}

#[test]
fn a_session_token_stays_small_and_never_asks_for_less() {
    let mut token = GtidSet::default();
    let mut written = GtidSet::default();
    for number in 1..400 {
        let text = format!("{A}:{}", number * 3 + number % 7);
        token.add(&mysql(&text));
        written.union(&mysql(&text));
        assert!(token.contains(&written), "after {text}");
    }
    assert!(token.to_string().split(':').count() <= 1 + ADDED_INTERVALS_MAX, "{token}");

    let mut token = GtidSet::default();
    for text in ["0-1-7", "0-1-9", "3-1-1"] {
        token.add(&mariadb(text));
    }
    assert_eq!(token.to_string(), "0-1-9,3-1-1");
}

#[test]
fn mariadb_subtraction_keeps_unreached_domains() {
    assert_eq!(mariadb("0-1-7,1-1-3").subtract(&mariadb("0-1-9,1-1-2")), mariadb("1-1-3"));
    assert!(mariadb("0-1-7").subtract(&mariadb("0-1-7")).is_empty());
}

type Model = BTreeSet<(u8, &'static str, u64)>;

fn uuid(of: u8) -> String {
    format!("{of:08x}-71ca-11e1-9e33-c80aa9429562")
}

fn text(model: &Model) -> String {
    let gtids = model.iter().map(|(source, tag, number)| match *tag {
        "" => format!("{}:{number}", uuid(*source)),
        tag => format!("{}:{tag}:{number}", uuid(*source)),
    });
    gtids.collect::<Vec<_>>().join(",")
}

fn models() -> impl Strategy<Value = Model> {
    let tags = prop_oneof![Just(""), Just("a"), Just("t_1")];
    proptest::collection::btree_set((0u8..3, tags, 1u64..24), 0..60)
}

proptest! {
    #[test]
    fn mysql_sets_behave_as_sets(a in models(), b in models()) {
        let (x, y) = (mysql(&text(&a)), mysql(&text(&b)));
        prop_assert_eq!(x.contains(&y), a.is_superset(&b));
        let mut union = x.clone();
        union.union(&y);
        prop_assert_eq!(&union, &mysql(&text(&a.union(&b).copied().collect())));
        let difference = x.subtract(&y);
        prop_assert_eq!(&difference, &mysql(&text(&a.difference(&b).copied().collect())));
        prop_assert_eq!(x.is_empty(), a.is_empty());
        let sources = a.iter().map(|(source, tag, _)| (*source, *tag)).collect::<BTreeSet<_>>();
        prop_assert_eq!(x.domains_or_sources(), sources.len());
        prop_assert_eq!(&mysql(&x.to_string()), &x);
    }

    #[test]
    fn mariadb_positions_behave_as_maps(
        a in proptest::collection::btree_map(0u32..4, 1u64..9, 0..4),
        b in proptest::collection::btree_map(0u32..4, 1u64..9, 0..4),
    ) {
        let text = |map: &BTreeMap<u32, u64>| {
            let parts = map.iter().map(|(domain, sequence)| format!("{domain}-1-{sequence}"));
            parts.collect::<Vec<_>>().join(",")
        };
        let (x, y) = (mariadb(&text(&a)), mariadb(&text(&b)));
        let contained = b.iter().all(|(domain, want)| a.get(domain).is_some_and(|at| at >= want));
        prop_assert_eq!(x.contains(&y), contained);
        let mut union = x.clone();
        union.union(&y);
        prop_assert!(union.contains(&x) && union.contains(&y));
        prop_assert_eq!(mariadb(&union.to_string()), union);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(text in "\\PC{0,60}|[0-9a-f:,-]{0,80}") {
        let _ = (GtidSet::parse_mysql(&text), GtidSet::parse_mariadb(&text));
    }
}

#[test]
fn what_a_history_holds_beyond_another_is_told_by_server() {
    let state = |text| MariaDbState::parse(text).expect("a state");
    let mine = state("0-1-9,0-2-7,1-3-4");
    let table = [
        ("0-1-9,0-2-7,1-3-4", &[][..], ""),
        ("0-1-8,0-2-7,1-3-4", &[], "0-1-9"),
        ("0-1-8,0-2-6", &[1], "0-2-7,1-3-4"),
        ("", &[1, 2, 3], ""),
    ];
    for (other, except, left) in table {
        assert_eq!(mine.beyond(&state(other), except).to_string(), left, "{other} {except:?}");
    }
    let position = GtidSet::parse_mariadb("0-1-8,2-1-1").expect("a position");
    assert_eq!(mine.after(&position).to_string(), "0-1-9,1-3-4");
    let mut both = state("0-1-9");
    both.union(&state("0-1-8,0-2-3"));
    assert_eq!(both.to_string(), "0-1-9,0-2-3");
}

#[test]
fn a_source_is_left_out_with_its_tags() {
    let (one, two) =
        ("3e11fa47-71ca-11e1-9e33-c80aa9429562", "3e11fa47-71ca-11e1-9e33-c80aa9429563");
    let set = GtidSet::parse_mysql(&format!("{one}:1-5:tag:1,{two}:7")).expect("a set");
    assert_eq!(set.without_source(one).to_string(), format!("{two}:7"));
    assert_eq!(set.without_source(""), set);
    assert!(set.without_source(one).without_source(two).is_empty());
}

#[test]
fn what_a_history_lacks_is_told_by_server_with_where_it_ends() {
    let state = |text| MariaDbState::parse(text).expect("a state");
    let (mine, other) = (state("0-1-8,0-2-9,1-3-4"), state("0-1-8,0-2-7"));
    let missing = mine.beyond(&other, &[]).known_to(&other);
    assert_eq!(missing, [(2, Some("0-2-7".to_owned())), (3, None)]);
}
