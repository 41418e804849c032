//! From observations and signals to a verdict on one server, with hysteresis.
//!
//! A server goes down after `fall` failed probes in a row and comes back after `rise` good ones.
//! What sessions report (a lost link) raises suspicion and asks for a probe; it never takes a
//! server down by itself, since it may be the session's own fault.

use std::time::Instant;

use crate::health::observation::{Failure, FailureKind, Observation, Seen};
use crate::topology::Condition;

/// How many probes in a row change a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hysteresis {
    /// Failures before a server is down; at least one counts as one.
    pub fall: u32,
    /// Successes before a server that was down is up.
    pub rise: u32,
}

/// What links of sessions tell about a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignalKind {
    /// An established link broke.
    LinkLost,
    /// No link could be made.
    DialFailed,
    /// A write was refused with 1290 or 1836: the primary is being demoted.
    ReadOnlyRefused,
    /// A client has set `read_only` there, by a statement of its own.
    SetReadOnly,
    /// 1040, 1203 or 1226: alive, but full.
    Overload,
}

/// The verdict on one server, and what it rests on.
#[derive(Debug, Clone)]
pub struct Judgement {
    verdict: Verdict,
    failures: u32,
    successes: u32,
    /// The last successful probe.
    last: Option<(Instant, Instant, Seen)>,
    trouble: String,
    /// The server has said that it shuts down, and has taken no connection since.
    leaving: bool,
    observed: bool,
    down_since: Option<Instant>,
    /// When a client of ours has set `read_only` there.
    closed: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Never seen. Counts as down, but the first good probe is enough.
    Fresh,
    Up,
    Suspect,
    Down,
}

// === impls ===

impl Judgement {
    /// The verdict on a server that was not probed yet.
    #[must_use]
    pub fn fresh() -> Self {
        Self {
            verdict: Verdict::Fresh,
            failures: 0,
            successes: 0,
            last: None,
            trouble: "not probed yet".to_owned(),
            leaving: false,
            observed: false,
            down_since: None,
            closed: None,
        }
    }

    /// Takes one probe's result into account.
    pub fn observe(&mut self, observation: Observation, limits: Hysteresis) {
        self.observed = true;
        let Observation { began, ended, result } = observation;
        let leaving = |failure: &Failure| failure.kind == FailureKind::Leaving;
        self.leaving = result.as_ref().is_err_and(leaving);
        match result {
            Ok(seen) => {
                self.trouble.clone_from(&seen.note);
                self.closed = self.closed.filter(|at| seen.read_only || began <= *at);
                self.last = Some((began, ended, seen));
                self.failures = 0;
                self.succeed(limits);
            }
            Err(failure) if failure.kind.counts() => {
                self.trouble = failure.text;
                self.successes = 0;
                // What comes back may have been started with other settings.
                self.closed = None;
                self.fail(ended, limits);
            }
            Err(failure) => {
                // It answered, so it lives; what was known of it stays as it was.
                self.trouble = failure.text;
                if failure.kind == FailureKind::Denied {
                    self.trouble.push_str("; grant the monitor account what it lacks");
                }
            }
        }
    }

    /// Takes a session's report into account; `true` when a probe should follow at once.
    pub fn signal(&mut self, kind: SignalKind, now: Instant) -> bool {
        match kind {
            SignalKind::LinkLost | SignalKind::DialFailed => {
                if self.verdict == Verdict::Up {
                    self.verdict = Verdict::Suspect;
                    self.trouble = "a session lost its link or could not connect".to_owned();
                }
                self.verdict == Verdict::Suspect
            }
            SignalKind::ReadOnlyRefused => true,
            SignalKind::SetReadOnly => {
                self.closed = Some(now);
                true
            }
            SignalKind::Overload => false,
        }
    }

    /// The condition as judged, before an operator's wishes.
    #[must_use]
    pub fn condition(&self) -> Condition {
        match self.verdict {
            Verdict::Up => Condition::Up,
            Verdict::Suspect => Condition::Suspect,
            Verdict::Fresh | Verdict::Down => Condition::Down,
        }
    }

    /// What the last successful probe saw, as long as the server is not down.
    #[must_use]
    pub fn alive(&self) -> Option<&Seen> {
        self.condition().usable().then(|| self.seen())?
    }

    /// What the last successful probe saw, however old.
    #[must_use]
    pub fn seen(&self) -> Option<&Seen> {
        self.last.as_ref().map(|(_, _, seen)| seen)
    }

    /// When the last successful probe began.
    #[must_use]
    pub fn seen_at(&self) -> Option<Instant> {
        self.last.as_ref().map(|(began, _, _)| *began)
    }

    /// When the last successful probe ended.
    #[must_use]
    pub fn seen_until(&self) -> Option<Instant> {
        self.last.as_ref().map(|(_, ended, _)| *ended)
    }

    /// Whether it is read-only because a client of ours made it so, as far as is known.
    #[must_use]
    pub fn closed_by_client(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether any probe has come to an end, good or bad.
    #[must_use]
    pub fn observed(&self) -> bool {
        self.observed
    }

    /// Whether the last probe was answered, and be it with a refusal.
    #[must_use]
    pub fn answered(&self) -> bool {
        self.failures == 0
    }

    /// Whether the server has said that it shuts down, and has taken no connection since.
    #[must_use]
    pub fn leaving(&self) -> bool {
        self.leaving
    }

    /// When it went down, if it is down.
    #[must_use]
    pub fn down_since(&self) -> Option<Instant> {
        self.down_since
    }

    /// The last observation error; empty when the last probe found nothing wrong.
    #[must_use]
    pub fn trouble(&self) -> &str {
        &self.trouble
    }

    fn succeed(&mut self, limits: Hysteresis) {
        self.successes = self.successes.saturating_add(1);
        if self.verdict == Verdict::Down && self.successes < limits.rise {
            let left = limits.rise - self.successes;
            self.trouble = format!("answers again; {left} more good probes until it is used");
            return;
        }
        self.verdict = Verdict::Up;
        self.down_since = None;
    }

    fn fail(&mut self, now: Instant, limits: Hysteresis) {
        self.failures = self.failures.saturating_add(1);
        match self.verdict {
            Verdict::Fresh | Verdict::Down => {
                self.down_since.get_or_insert(now);
            }
            Verdict::Up | Verdict::Suspect if self.failures >= limits.fall => {
                self.verdict = Verdict::Down;
                self.down_since = Some(now);
            }
            Verdict::Up | Verdict::Suspect => self.verdict = Verdict::Suspect,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::health::fixture;

    const LIMITS: Hysteresis = Hysteresis { fall: 3, rise: 2 };

    /// One letter a step: `o` good probe, `x` unreachable, `t` timeout, `f` full (1040),
    /// `d` denied, `p` puzzling, `l` a session lost its link, `r` 1290, `v` overload signal.
    fn after(steps: &str) -> (Condition, String) {
        let mut judgement = Judgement::fresh();
        let mut now = Instant::now();
        for step in steps.chars() {
            now += Duration::from_millis(500);
            let result = match step {
                'o' => Ok(fixture::seen(1)),
                'x' => Err(Failure::new(FailureKind::Unreachable, "connection refused")),
                't' => Err(Failure::new(FailureKind::Timeout, "no answer in 1 s")),
                'f' => Err(Failure::new(FailureKind::of_errno(1040), "too many connections")),
                'd' => Err(Failure::new(FailureKind::of_errno(1045), "access denied")),
                'p' => Err(Failure::new(FailureKind::Puzzling, "odd answer")),
                'l' | 'r' | 'v' => {
                    let kind = match step {
                        'l' => SignalKind::LinkLost,
                        'r' => SignalKind::ReadOnlyRefused,
                        _ => SignalKind::Overload,
                    };
                    judgement.signal(kind, now);
                    continue;
                }
                other => panic!("no such step: {other}"),
            };
            judgement.observe(Observation { began: now, ended: now, result }, LIMITS);
        }
        (judgement.condition(), judgement.trouble().to_owned())
    }

    #[test]
    fn conditions_follow_probes_with_hysteresis() {
        use Condition::{Down, Suspect, Up};
        let table = [
            ("", Down),
            ("x", Down),
            ("o", Up),
            ("xo", Up),
            ("xxxxo", Up),
            ("ox", Suspect),
            ("oxx", Suspect),
            ("oxxx", Down),
            ("ottt", Down),
            ("oxtx", Down),
            ("oxxoxxox", Suspect),
            ("oxxo", Up),
            ("oxxxo", Down),
            ("oxxxoo", Up),
            ("oxxxoxo", Down),
            ("oxxxoxoo", Up),
            // What a server answers is never its death.
            ("offffffff", Up),
            ("odddddddd", Up),
            ("oppppp", Up),
            ("oxxdddd", Suspect),
            ("oxxxdddd", Down),
            // Sessions raise suspicion, no more.
            ("ol", Suspect),
            ("ollllllllll", Suspect),
            ("olo", Up),
            ("olxx", Suspect),
            ("olxxx", Down),
            ("oxxxl", Down),
            ("or", Up),
            ("ovvvvv", Up),
        ];
        for (steps, expected) in table {
            assert_eq!(after(steps).0, expected, "after {steps:?}");
        }
    }

    #[test]
    fn trouble_names_the_last_error_and_goes_away() {
        assert_eq!(after("").1, "not probed yet");
        assert_eq!(after("ox").1, "connection refused");
        assert_eq!(after("oxo").1, "");
        assert!(after("od").1.starts_with("access denied; grant"));
        assert!(after("oxxxo").1.contains("1 more good probe"));
    }

    #[test]
    fn signals_ask_for_a_probe_when_it_can_tell_something() {
        let (mut judgement, now) = (Judgement::fresh(), Instant::now());
        assert!(!judgement.signal(SignalKind::LinkLost, now), "down already: its timer is enough");
        let good = Observation { began: now, ended: now, result: Ok(fixture::seen(1)) };
        judgement.observe(good, LIMITS);
        assert!(judgement.signal(SignalKind::LinkLost, now));
        assert!(judgement.signal(SignalKind::DialFailed, now));
        assert!(judgement.signal(SignalKind::ReadOnlyRefused, now));
        assert!(!judgement.signal(SignalKind::Overload, now));
    }

    #[test]
    fn a_client_has_closed_a_server_until_a_later_probe_finds_it_open_or_none() {
        let (mut judgement, begun) = (Judgement::fresh(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        let probe = |judgement: &mut Judgement, began, read_only| {
            let seen = Seen { read_only, ..fixture::seen(1) };
            let observation = Observation { began: at(began), ended: at(9), result: Ok(seen) };
            judgement.observe(observation, LIMITS);
        };
        assert!(judgement.signal(SignalKind::SetReadOnly, at(2)));
        probe(&mut judgement, 1, false);
        assert!(judgement.closed_by_client(), "that probe began before");
        probe(&mut judgement, 3, true);
        assert!(judgement.closed_by_client());
        probe(&mut judgement, 4, false);
        assert!(!judgement.closed_by_client());
        judgement.signal(SignalKind::SetReadOnly, at(5));
        let result = Err(Failure::new(FailureKind::Unreachable, "connection refused"));
        judgement.observe(Observation { began: at(6), ended: at(6), result }, LIMITS);
        assert!(!judgement.closed_by_client(), "it may have been started anew");
    }
}
