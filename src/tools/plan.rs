//! What a verb will do and why, and carrying it out. What a verb found speaks first: a check that
//! fails leaves no step to be taken.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::failover::order::Order;
use crate::tls::TlsError;
use crate::tools::preflight::{Finding, Level};
use crate::tools::salvage::Salvage;
use crate::tools::seed::Seeding;
use crate::topology::NodeId;

/// What a verb will do.
#[derive(Debug)]
pub struct Plan {
    /// The verb.
    pub verb: &'static str,
    /// The group that it is about.
    pub group: Arc<str>,
    /// What was looked at beforehand.
    pub findings: Vec<Finding>,
    /// What was decided on the way, and why; sentences.
    pub notes: Vec<String>,
    /// What will be done, in this order. None: there is nothing to do.
    pub steps: Vec<Step>,
}

/// One thing that will be done.
#[derive(Debug)]
pub struct Step {
    /// Where; a server's name, or the file.
    pub place: Arc<str>,
    /// What, in words; never a secret.
    pub what: String,
    /// Why.
    pub why: &'static str,
    /// The thing itself.
    pub act: Act,
}

/// What a step does.
#[derive(Debug)]
pub enum Act {
    /// A server is told something.
    Tell(Order),
    /// A server gets the data of another.
    Seed(Box<Seeding>),
    /// What only one server has is written to a file.
    Save(Box<Salvage>),
    /// It is waited until a server follows another and has applied what that had.
    Await {
        /// Who follows.
        replica: NodeId,
        /// Whom.
        source: NodeId,
    },
    /// The running proxy is told something.
    Console(String),
    /// The configuration file gets this content.
    Write(PathBuf, String),
}

/// Why a verb did not do its work. Passwords are in none of the texts.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The command line or the configuration is wrong.
    #[error("{0}")]
    Usage(String),
    /// It must not, or cannot, be done; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// It was begun and did not come to its end; the verb may be repeated.
    #[error("{0}")]
    Failed(String),
    /// Certificates or pins cannot be read.
    #[error("server_tls: {0}")]
    Tls(#[from] TlsError),
}

// === impls ===

impl VerbError {
    /// The exit code: 1 for work that failed, 2 for work that was refused, 64 for a wrong command
    /// line or configuration.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Refused(_) => 2,
            Self::Usage(_) | Self::Tls(_) => 64,
        }
    }

    /// What became of the verb, for programs.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Failed(_) => "failed",
            Self::Refused(_) => "refused",
            Self::Usage(_) | Self::Tls(_) => "wrong",
        }
    }
}

impl Plan {
    /// A plan without steps.
    #[must_use]
    pub fn new(verb: &'static str, group: &Arc<str>) -> Self {
        let group = group.clone();
        Self { verb, group, findings: Vec::new(), notes: Vec::new(), steps: Vec::new() }
    }

    /// Adds a step at the end.
    pub fn push(&mut self, place: &Arc<str>, what: String, why: &'static str, act: Act) {
        self.steps.push(Step { place: place.clone(), what, why, act });
    }

    /// Adds an order to a server at the end.
    pub fn tell(&mut self, place: &Arc<str>, order: Order, why: &'static str) {
        self.push(place, order.what.describe(), why, Act::Tell(order));
    }

    /// Whether a check speaks against it.
    ///
    /// # Errors
    /// With all checks that do.
    pub fn refuse_failed(&self) -> Result<(), VerbError> {
        let failed: Vec<String> = self
            .findings
            .iter()
            .filter(|finding| finding.level == Level::Fail)
            .map(|finding| format!("{} ({}): {}", finding.id, finding.server, finding.found))
            .collect();
        match failed.as_slice() {
            [] => Ok(()),
            _ => Err(VerbError::Refused(failed.join("\n"))),
        }
    }

    /// The plan as people read it.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            text += &format!("{}\n", finding.line());
        }
        for note in &self.notes {
            text += &format!("{note}\n");
        }
        match self.steps.as_slice() {
            [] => text += "nothing to do\n",
            steps => {
                text += &format!("{} of group {} will:\n", self.verb, self.group);
                for (index, step) in steps.iter().enumerate() {
                    let Step { place, what, why, .. } = step;
                    let number = index + 1;
                    text += &format!("  {number}. {place}: {what}\n     because {why}\n");
                }
            }
        }
        text
    }

    /// The same as an object; `outcome` is what became of it.
    #[must_use]
    pub fn to_json(&self, outcome: &str, told: &[String]) -> Value {
        let findings: Vec<Value> = self.findings.iter().map(Finding::to_json).collect();
        let steps: Vec<Value> = self
            .steps
            .iter()
            .enumerate()
            .map(|(index, step)| {
                let told = told.get(index);
                json!({
                    "place": &*step.place, "what": step.what, "why": step.why,
                    "done": told.is_some(), "told": told,
                })
            })
            .collect();
        json!({
            "verb": self.verb, "group": &*self.group, "outcome": outcome,
            "checks": findings, "notes": self.notes, "steps": steps,
        })
    }
}
