//! Several pointsman on one store in memory, in modelled time.

use std::sync::Mutex;

use super::*;

/// The store that all share.
#[derive(Debug, Default)]
struct World {
    now: Duration,
    revision: i64,
    entries: BTreeMap<String, Entry>,
    /// When each lease ends, and how long it lasts.
    leases: BTreeMap<i64, (Duration, Duration)>,
}

/// One pointsman's way to it.
#[derive(Debug, Clone)]
struct Memory {
    world: Arc<Mutex<World>>,
    /// Nothing gets through.
    parted: Arc<std::sync::atomic::AtomicBool>,
}

impl World {
    fn expire(&mut self) {
        let now = self.now;
        let gone: Vec<i64> =
            self.leases.iter().filter(|(_, (end, _))| *end <= now).map(|(id, _)| *id).collect();
        for id in gone {
            self.leases.remove(&id);
            self.entries.retain(|_, entry| entry.lease != id);
            self.revision += 1;
        }
    }
}

impl Memory {
    fn reach(&self) -> Result<std::sync::MutexGuard<'_, World>, StoreError> {
        if self.parted.load(Ordering::Relaxed) {
            return Err(StoreError::NoAnswer("parted".to_owned()));
        }
        let mut world = self.world.lock().expect("the world");
        world.expire();
        Ok(world)
    }
}

impl Store for Memory {
    fn now(&self) -> Duration {
        self.world.lock().expect("the world").now
    }

    async fn grant(&mut self, ttl: Duration) -> Result<i64, StoreError> {
        let mut world = self.reach()?;
        world.revision += 1;
        let (id, end) = (world.revision, world.now + ttl);
        world.leases.insert(id, (end, ttl));
        Ok(id)
    }

    async fn renew(&mut self, lease: i64) -> Result<(), StoreError> {
        let mut world = self.reach()?;
        let now = world.now;
        let (end, ttl) = world.leases.get_mut(&lease).ok_or(StoreError::LeaseGone)?;
        *end = now + *ttl;
        Ok(())
    }

    async fn revoke(&mut self, lease: i64) -> Result<(), StoreError> {
        let mut world = self.reach()?;
        let now = world.now;
        world.leases.entry(lease).and_modify(|(end, _)| *end = now);
        world.expire();
        Ok(())
    }

    async fn read(&mut self) -> Result<Snapshot, StoreError> {
        let world = self.reach()?;
        let entries = world.entries.values().cloned().collect();
        Ok(Snapshot { revision: world.revision, entries })
    }

    async fn change(&mut self, change: Change) -> Result<Option<i64>, StoreError> {
        let mut world = self.reach()?;
        let of = |world: &World, key: &str, revision: fn(&Entry) -> i64| {
            world.entries.get(key).map_or(0, revision)
        };
        let holds = |condition: &Condition| match condition {
            Condition::Created(key, at) => of(&world, key, |entry| entry.created) == *at,
            Condition::Changed(key, at) => of(&world, key, |entry| entry.changed) == *at,
        };
        if !change.only_if.iter().all(holds) {
            return Ok(None);
        }
        if change.lease != 0 && !world.leases.contains_key(&change.lease) {
            return Err(StoreError::LeaseGone);
        }
        world.revision += 1;
        let changed = world.revision;
        let created = of(&world, &change.key, |entry| entry.created);
        let created = if created == 0 { changed } else { created };
        match change.value {
            Some(value) => {
                let key = change.key.clone();
                let entry = Entry { key, value, created, changed, lease: change.lease };
                world.entries.insert(change.key, entry);
            }
            None => drop(world.entries.remove(&change.key)),
        }
        Ok(Some(changed))
    }

    async fn rung(&mut self) {
        std::future::pending().await
    }

    fn move_on(&mut self) {}
}

const TTL: Duration = Duration::from_secs(3);

/// One pointsman with one group.
struct Pointsman {
    agent: Agent<Memory>,
    desk: Desk,
    store: Memory,
    /// How many servers answer it.
    answering: usize,
}

impl Pointsman {
    fn new(world: &Arc<Mutex<World>>, id: &str) -> Self {
        let store = Memory { world: world.clone(), parted: Arc::default() };
        let groups = [Arc::from("main")];
        let (agent, mut desks) = Agent::new(store.clone(), id.to_owned(), TTL, &groups);
        Self { agent, desk: desks.remove(0), store, answering: 3 }
    }

    /// Looks, and its keeper obeys what it sees.
    async fn turn(&mut self) -> bool {
        let is_well = self.agent.turn().await;
        if let Some(view) = self.desk.view() {
            self.obey(&view);
            self.agent.extend();
        }
        is_well
    }

    fn obey(&self, view: &View) {
        let (seen, answering) = (view.record.revision, self.answering);
        let said = Said { seen, answering, ..Said::default() };
        self.desk.say(view.term, Some(said));
    }

    fn leads(&self) -> Option<i64> {
        let leader = self.desk.view()?.leader.clone()?;
        leader.is_own.then_some(leader.number)
    }

    /// Until when it may send, by the modelled clock.
    fn until(&self) -> Duration {
        Duration::from_nanos(self.desk.lease().until())
    }

    async fn write(&mut self, number: i64, after: i64, text: &str) -> Result<i64, WriteError> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        let (group, text) = (Arc::from("main"), text.to_owned());
        self.agent.grant(Wish { group, number, after, text, reply }).await;
        answer.await.expect("an answer")
    }

    fn part(&self, parted: bool) {
        self.store.parted.store(parted, Ordering::Relaxed);
    }
}

fn pass(world: &Arc<Mutex<World>>, millis: u64) {
    world.lock().expect("the world").now += Duration::from_millis(millis);
}

#[tokio::test]
async fn one_leads_and_another_takes_its_place_when_its_lease_ends() {
    let world = Arc::default();
    let (mut one, mut two) = (Pointsman::new(&world, "pm1"), Pointsman::new(&world, "pm2"));
    for _ in 0..2 {
        assert!(one.turn().await && two.turn().await);
    }
    let number = one.leads().expect("the first to run leads");
    assert_eq!(two.leads(), None);
    assert_eq!(two.desk.view().expect("a view").members.len(), 2);
    let written = one.write(number, 0, "first").await.expect("it may write");

    // Stopped for longer than its lease: another leads, and what it did last stands.
    for _ in 0..4 {
        pass(&world, 1000);
        two.turn().await;
    }
    let next = two.leads().expect("it leads now");
    assert_ne!(next, number);
    assert_eq!(two.desk.view().expect("a view").record.text, "first");
    assert_eq!(two.desk.view().expect("a view").members.len(), 1);
    let after = two.write(next, written, "second").await.expect("it may write");

    // It goes on: it writes nothing by its old leadership, nor by what it has read.
    assert_eq!(one.write(number, written, "late").await, Err(WriteError::Fenced));
    assert_eq!(one.write(next, written, "late").await, Err(WriteError::Fenced));
    assert!(one.until() <= world.lock().expect("the world").now);
    assert!(one.agent.turn().await);
    let view = one.desk.view().expect("a new lease");
    assert_eq!((view.term, &*view.record.text, view.record.revision), (2, "second", after));
    assert_eq!(one.leads(), None);
    // Until its keeper has obeyed, it sends nothing.
    assert_eq!(one.until(), Duration::ZERO);
    assert_eq!(two.desk.view().expect("a view").unaware(after), Vec::<&str>::new());
    two.turn().await;
    assert_eq!(two.desk.view().expect("a view").unaware(after), ["pm1"]);
    one.turn().await;
    one.turn().await;
    two.turn().await;
    assert!(one.until() > world.lock().expect("the world").now);
    assert_eq!(two.desk.view().expect("a view").unaware(after), Vec::<&str>::new());
}

#[tokio::test]
async fn who_does_not_reach_the_store_sends_nothing_before_its_lease_can_end_there() {
    let world = Arc::default();
    let mut one = Pointsman::new(&world, "pm1");
    for _ in 0..2 {
        one.turn().await;
    }
    let granted = world.lock().expect("the world").now;
    assert_eq!(one.until(), granted + TTL - GUARD);
    pass(&world, 1000);
    one.turn().await;
    let renewed = granted + Duration::from_millis(1000);
    assert_eq!(one.until(), renewed + TTL - GUARD);
    one.part(true);
    for _ in 0..24 {
        pass(&world, 100);
        assert!(!one.turn().await);
    }
    assert!(one.desk.view().is_some());
    pass(&world, 100);
    one.turn().await;
    // The store keeps the lease for as long as the guard; here it is over.
    assert_eq!(one.until(), world.lock().expect("the world").now);
    assert!(one.desk.view().is_none());
    assert!(!world.lock().expect("the world").entries.is_empty());
    // Back in time, it has lost nothing: others have waited for it.
    one.part(false);
    assert!(one.turn().await);
    assert_eq!(one.desk.view().expect("a view").term, 1);
    assert!(one.until() > world.lock().expect("the world").now);
}

#[tokio::test]
async fn who_leaves_lets_others_act_at_once() {
    let world = Arc::default();
    let (mut one, mut two) = (Pointsman::new(&world, "pm1"), Pointsman::new(&world, "pm2"));
    for _ in 0..2 {
        one.turn().await;
        two.turn().await;
    }
    assert!(one.leads().is_some());
    one.agent.leave().await;
    assert_eq!((one.until(), one.desk.view()), (Duration::ZERO, None));
    two.turn().await;
    assert!(two.leads().is_some());
    // A group that is not kept any more is given up.
    let term = two.desk.view().expect("a view").term;
    two.desk.say(term, None);
    two.agent.turn().await;
    assert_eq!(two.leads(), None);
}

#[tokio::test]
async fn who_reaches_no_server_leaves_it_to_one_who_does() {
    let world = Arc::default();
    let (mut one, mut two) = (Pointsman::new(&world, "pm1"), Pointsman::new(&world, "pm2"));
    // Where nobody reaches any, there is nothing to be gained.
    (one.answering, two.answering) = (0, 0);
    for _ in 0..4 {
        one.turn().await;
        two.turn().await;
    }
    let number = one.leads().expect("the first to run leads");
    two.answering = 1;
    for _ in 0..3 {
        two.turn().await;
        one.turn().await;
    }
    assert_eq!(one.leads(), None);
    assert!(two.leads().is_some());
    assert_eq!(one.write(number, 0, "late").await, Err(WriteError::Fenced));
}

#[test]
fn what_others_say_of_a_group_is_found_among_what_they_say() {
    let entry = |key: &str, value: &str, lease| Entry {
        key: key.to_owned(),
        value: value.to_owned(),
        created: 3,
        changed: 5,
        lease,
    };
    let said = r#"{"groups":{"main":{"seen":7,"epoch":2,"step":"","reaches":true,
                   "unfinished":4,"acknowledged":"0-1-9"},"other":null}}"#;
    let entries = vec![
        entry("groups/main/leader", "pm1", 10),
        entry("groups/main/record", "{}", 0),
        entry("members/pm1@a", r#"{"groups":{"main":null}}"#, 10),
        entry("members/pm2@b", said, 11),
        entry("members/pm3@c", r#"{"groups":{}}"#, 12),
        entry("members/pm4@d", "of another version", 13),
    ];
    let snapshot = Snapshot { revision: 9, entries };
    let found = view(&snapshot, "main", 10, 1);
    let leader = Leader { id: "pm1".to_owned(), number: 3, is_own: true };
    assert_eq!(found.leader, Some(leader));
    assert_eq!(found.record, Written { text: "{}".to_owned(), revision: 5 });
    // The third does not serve the group; of the fourth nobody knows.
    assert_eq!(found.unaware(7), ["pm4"]);
    assert_eq!(found.unaware(8), ["pm2", "pm4"]);
    assert_eq!(found.reaching(), Some("pm2"));
    assert_eq!((found.unfinished(), found.looks()), (None, None));
    let told = || vec!["0-1-9".to_owned()];
    assert_eq!(found.acknowledged(7), (told(), false), "of the fourth nobody knows");
    let entries = snapshot.entries.into_iter().filter(|entry| entry.lease != 13).collect();
    let found = view(&Snapshot { revision: 9, entries }, "main", 10, 1);
    assert_eq!(found.unfinished(), Some(4));
    assert_eq!(found.acknowledged(7), (told(), true));
    assert_eq!(found.acknowledged(8), (Vec::new(), false), "it has not seen that");
    assert_eq!(view(&Snapshot::default(), "main", 10, 1).record, Written::default());
}
