//! What is drawn from what servers say.

use super::*;

const LEASE: Duration = Duration::from_secs(3);

fn at(millis: u64) -> Duration {
    Duration::from_secs(1000) + Duration::from_millis(millis)
}

fn tally(servers: usize) -> Tally {
    let elector =
        |number| Elector { name: format!("db{number}"), address: format!("db{number}:3306") };
    Tally::new((1..=servers).map(elector).collect(), LEASE, 7)
}

fn locks(tally: &mut Tally, server: usize, millis: u64, acts: Lock) {
    let said = Locks { acts, word: None, rests: None };
    tally.on_locks(server, Some(Heard { began: at(millis), ended: at(millis + 5), said }));
}

/// A server that follows nobody, or this one.
fn state(of: Option<usize>) -> State {
    let now = Instant::now();
    let follow = |of: usize| Followed {
        address: format!("db{}:3306", of + 1),
        server_id: 0,
        receives: true,
        stopped: false,
    };
    State {
        connected: now,
        asked: now,
        closed: of.is_some(),
        server_id: 0,
        started: 17,
        sources: of.map(follow).into_iter().collect(),
        holder: String::new(),
    }
}

fn says(tally: &mut Tally, server: usize, millis: u64, said: State) {
    tally.on_state(server, Some(Heard { began: at(millis), ended: at(millis + 5), said }));
}

#[test]
fn who_has_a_majority_acts_after_a_lease_and_as_long_as_it_is_proved() {
    let mut tally = tally(3);
    locks(&mut tally, 0, 0, Lock::Own);
    locks(&mut tally, 1, 0, Lock::Own);
    // Who had them before may go by them still.
    for millis in [500, 1000, 1500, 2000, 2500] {
        locks(&mut tally, 0, millis, Lock::Own);
        locks(&mut tally, 1, millis, Lock::Own);
        assert_eq!(tally.acts(at(millis + 5)), None, "after {millis} ms");
    }
    locks(&mut tally, 0, 3000, Lock::Own);
    locks(&mut tally, 1, 3000, Lock::Own);
    let until = at(3000) + LEASE - GUARD;
    assert_eq!(tally.acts(at(3005)), Some((1, until)));
    // A third one does not count before its time, nor does it make up for one that is lost.
    locks(&mut tally, 2, 3500, Lock::Own);
    assert_eq!(tally.acts(at(3505)), Some((1, until)));
    tally.on_locks(0, None);
    assert_eq!(tally.acts(at(3510)), None, "started anew, it has forgotten");
    locks(&mut tally, 0, 3600, Lock::Own);
    assert_eq!(tally.acts(at(3610)), None);
    locks(&mut tally, 1, 6600, Lock::Own);
    locks(&mut tally, 2, 6600, Lock::Own);
    assert_eq!(tally.acts(at(6605)).map(|(number, _)| number), Some(2), "another leadership");
    // What it does not hear counts no more, whatever it held.
    assert_eq!(tally.acts(at(6600) + LEASE - GUARD), None);
}

#[test]
fn two_that_have_half_each_give_way_and_one_that_cannot_win_does_not_begin() {
    let mut tally = tally(4);
    for server in 0..4 {
        locks(&mut tally, server, 0, Lock::Free);
    }
    assert!(tally.campaigns(at(10), true));
    locks(&mut tally, 0, 20, Lock::Own);
    locks(&mut tally, 1, 20, Lock::Own);
    locks(&mut tally, 2, 20, Lock::Another);
    assert!(tally.campaigns(at(30), true), "three may still be had");
    locks(&mut tally, 3, 40, Lock::Another);
    assert!(!tally.campaigns(at(50), true));
    for server in 0..4 {
        locks(&mut tally, server, 200, Lock::Free);
    }
    assert!(!tally.campaigns(at(210), true), "it rests for a while");
    for server in 0..4 {
        locks(&mut tally, server, 2000, Lock::Free);
    }
    assert!(tally.campaigns(at(2010), true));
    assert!(!tally.campaigns(at(2010), false), "nobody is to act");
}

#[test]
fn statements_go_to_whom_a_majority_names_by_the_oldest_word_that_counts() {
    let mut tally = tally(3);
    says(&mut tally, 0, 0, state(None));
    assert_eq!(tally.may_send_until("db1"), None, "it says so alone");
    says(&mut tally, 1, 300, state(Some(0)));
    assert_eq!(tally.may_send_until("db1"), Some(at(0) + LEASE - GUARD));
    says(&mut tally, 2, 700, state(Some(0)));
    says(&mut tally, 0, 900, state(None));
    assert_eq!(tally.may_send_until("db1"), Some(at(700) + LEASE - GUARD));
    assert_eq!(tally.sight(at(910)).primary.as_deref(), Some("db1"));
    // One that does not answer any more may have been started anew.
    tally.on_state(0, None);
    assert_eq!(tally.may_send_until("db1"), None);
    says(&mut tally, 0, 950, state(None));
    assert!(tally.may_send_until("db1").is_some());
    // Who is kept from receiving says no more that it is.
    for server in [1, 2] {
        let mut stopped = state(Some(0));
        stopped.sources.iter_mut().for_each(|source| source.stopped = true);
        says(&mut tally, server, 1000, stopped);
    }
    assert_eq!(tally.may_send_until("db1"), None);
    assert_eq!(tally.sight(at(1010)).primary, None);
    // Nor does one that takes no writes.
    let mut tally = self::tally(1);
    says(&mut tally, 0, 0, state(None));
    assert!(tally.may_send_until("db1").is_some());
    says(&mut tally, 0, 100, State { closed: true, ..state(None) });
    assert_eq!(tally.may_send_until("db1"), None);
}

#[test]
fn another_is_opened_a_lease_after_a_majority_cannot_name_the_former_one_any_more() {
    let mut tally = tally(3);
    let opens = |tally: &Tally, millis| tally.sight(at(millis)).hinders("db2", "db1").is_none();
    says(&mut tally, 0, 0, state(None));
    says(&mut tally, 1, 0, State { closed: true, ..state(None) });
    says(&mut tally, 2, 0, state(Some(1)));
    assert!(!opens(&tally, 10));
    says(&mut tally, 1, 2990, State { closed: true, ..state(None) });
    says(&mut tally, 2, 2990, state(Some(1)));
    assert!(!opens(&tally, 3004), "somebody may have been told otherwise a lease ago");
    assert!(opens(&tally, 3005));
    // A replica that was only stopped receives again when it is started anew.
    let mut stopped = state(Some(0));
    stopped.sources.iter_mut().for_each(|source| source.stopped = true);
    says(&mut tally, 2, 3100, stopped);
    assert!(!opens(&tally, 3105));
    says(&mut tally, 2, 3200, state(Some(1)));
    says(&mut tally, 1, 6000, State { closed: true, ..state(None) });
    says(&mut tally, 2, 6000, state(Some(1)));
    assert!(!opens(&tally, 6204));
    assert!(opens(&tally, 6205));
    // Those that were turned elsewhere and back are waited for anew, though nobody has seen it.
    let mut turned = self::tally(3);
    for millis in [0, 3000] {
        says(&mut turned, 1, millis, State { closed: true, ..state(None) });
        says(&mut turned, 2, millis, state(Some(1)));
    }
    assert!(opens(&turned, 3010));
    turned.on_turned(at(3020));
    says(&mut turned, 1, 3010, State { closed: true, ..state(None) });
    says(&mut turned, 2, 3010, state(Some(1)));
    says(&mut turned, 1, 6020, State { closed: true, ..state(None) });
    says(&mut turned, 2, 6020, state(Some(1)));
    assert!(!opens(&turned, 6030));
    // Of one that is silent nobody knows.
    tally.on_state(2, None);
    assert!(!opens(&tally, 6206));
    // One that follows somebody who is not known may follow anybody.
    let mut stranger = state(Some(1));
    stranger.sources.iter_mut().for_each(|source| source.address = "elsewhere:3306".to_owned());
    says(&mut tally, 2, 6300, stranger.clone());
    says(&mut tally, 1, 9400, State { closed: true, ..state(None) });
    says(&mut tally, 2, 9400, stranger);
    assert!(!opens(&tally, 9410));
}

/// MariaDB says of a replica that was turned elsewhere, and has not come to connect there, the id
/// of whom it was connected to before (10.11, measured).
#[test]
fn who_was_turned_away_and_does_not_connect_follows_where_it_was_turned_to() {
    for former in [0, 1] {
        let (heir, mut tally) = (1 - former, tally(3));
        let (own_id, heir_id) = (101 + u32::from(former == 1), 101 + u32::from(heir == 1));
        let mut turned = state(Some(heir));
        for source in &mut turned.sources {
            (source.server_id, source.receives) = (own_id, false);
        }
        for millis in [0, 3000] {
            says(&mut tally, former, millis, State { server_id: own_id, ..state(None) });
            let closed = State { closed: true, server_id: heir_id, ..state(None) };
            says(&mut tally, heir, millis, closed);
            says(&mut tally, 2, millis, turned.clone());
        }
        let [former, heir] = [former, heir].map(|at| format!("db{}", at + 1));
        assert_eq!(tally.may_send_until(&former), None, "{former} is named by itself alone");
        assert_eq!(tally.sight(at(3100)).hinders(&heir, &former), None, "from {former}");
        assert!(tally.sight(at(3100)).hinders(&former, &former).is_some(), "{heir} has it");
    }
}

/// Whom a server is connected to tells the id, whatever it takes the address for.
#[test]
fn who_is_connected_to_another_than_its_source_s_address_says_names_neither() {
    let mut tally = tally(3);
    says(&mut tally, 0, 0, State { server_id: 101, ..state(None) });
    says(&mut tally, 1, 0, State { server_id: 102, ..state(None) });
    let mut elsewhere = state(Some(1));
    elsewhere.sources.iter_mut().for_each(|source| source.server_id = 101);
    says(&mut tally, 2, 0, elsewhere);
    assert_eq!((tally.may_send_until("db1"), tally.may_send_until("db2")), (None, None));
    // By a name of its own for it.
    let mut named = state(Some(0));
    for source in &mut named.sources {
        (source.address, source.server_id) = ("primary.local:3306".to_owned(), 101);
    }
    says(&mut tally, 2, 10, named);
    assert!(tally.may_send_until("db1").is_some());
}

#[test]
fn a_former_primary_that_only_says_that_it_is_closed_does_not_count() {
    let mut tally = tally(3);
    for millis in [0, 3000] {
        says(&mut tally, 0, millis, State { closed: true, ..state(None) });
        says(&mut tally, 1, millis, State { closed: true, ..state(None) });
    }
    // Started anew it could take writes, and the third one may follow it.
    assert!(tally.sight(at(3100)).hinders("db2", "db1").is_some());
    let cleared = tally.sight(at(3100)).cleared;
    assert_eq!(cleared.get("db1"), Some(&Cleared::WhileClosed));
    assert_eq!(cleared.get("db3"), Some(&Cleared::ForGood));
}

#[test]
fn a_word_is_for_one_life_and_counts_from_a_majority() {
    let mut tally = tally(3);
    says(&mut tally, 0, 0, state(None));
    says(&mut tally, 1, 0, state(Some(0)));
    let word = tally.word_for(None, at(10)).expect("the primary's");
    let before = Instant::now() - Duration::from_secs(1);
    assert_eq!(tally.word_for(Some(&("db1".to_owned(), before)), at(10)), None, "another life");
    let sound = ("db1".to_owned(), Instant::now());
    assert_eq!(tally.word_for(Some(&sound), at(10)), Some(word.clone()));
    let give = |tally: &mut Tally, server| {
        let said = Locks { acts: Lock::Another, word: Some(word.clone()), rests: Some(true) };
        tally.on_locks(server, Some(Heard { began: at(20), ended: at(25), said }));
    };
    give(&mut tally, 1);
    assert_eq!(tally.sight(at(30)).judged, None);
    assert_eq!(tally.sight(at(30)).rests, None);
    give(&mut tally, 2);
    assert!(tally.sight(at(30)).judged.is_some());
    assert_eq!(tally.sight(at(30)).rests, Some(true));
    says(&mut tally, 0, 40, State { started: 18, ..state(None) });
    assert_eq!(tally.sight(at(50)).judged, None, "it was started anew");
}

/// Who has just taken the locks of one that is gone does not act yet, and has said nothing.
#[test]
fn who_has_the_locks_and_does_not_act_yet_does_not_end_the_operator_s_work() {
    let mut tally = tally(3);
    for holder in [Lock::Own, Lock::Another] {
        for server in 0..3 {
            locks(&mut tally, server, 0, holder);
        }
        assert_eq!(tally.sight(at(10)).rests, None, "{holder:?}");
    }
}

#[test]
fn a_primary_that_was_seen_before_it_was_one_has_lost_nothing_as_one() {
    let mut tally = tally(3);
    let connected = Instant::now();
    let over = |connected, of| State { connected, ..state(of) };
    says(&mut tally, 1, 0, over(connected, Some(0)));
    says(&mut tally, 2, 10, state(Some(1)));
    says(&mut tally, 1, 20, over(connected, None));
    let sight = tally.sight(at(30));
    assert_eq!((sight.primary.as_deref(), sight.risen), (Some("db2"), true));
    // Over another connection it may be another life.
    says(&mut tally, 1, 40, over(connected + LEASE, None));
    let sight = tally.sight(at(50));
    assert_eq!((sight.primary.as_deref(), sight.risen), (Some("db2"), false));
}
