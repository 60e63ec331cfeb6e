//! What a change would do, and what changes did. Field names are a contract: `docs/api.md`.

use serde::{Deserialize, Serialize};

use super::{transaction::Author, types::Timestamp};

/// What a change would do; nothing was changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// `false`: all is so already.
    pub changed: bool,
    /// One sentence for each difference of the configuration.
    pub changes: Vec<String>,
    /// Slots that change owner at once.
    pub slots_moved: u64,
    /// Slots that have changed owner once the backends that are new have passed their first check.
    pub slots_moved_when_ready: u64,
    /// Slots of all tables that this touches.
    pub slots_total: u64,
    /// Services whose table this touches.
    pub services: Vec<ServicePlan>,
    /// Remembered flows on backends that stay: they go on there.
    pub flows_protected: u64,
    /// Remembered flows on backends that leave, at most: entries do not tell services apart.
    pub flows_at_risk: u64,
    /// Memory of the tables.
    pub memory: MemoryPlan,
    /// What stands in the way, or must be known; empty when nothing does.
    pub warnings: Vec<String>,
}

/// What a change would do to one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicePlan {
    /// Name of the service.
    pub name: String,
    /// Slots that change owner at once.
    pub slots_moved: u64,
    /// Slots that have changed owner once the backends that are new have passed their first check.
    pub slots_moved_when_ready: u64,
    /// Length of the table.
    pub slots_total: u64,
    /// Part of the sources whose new connections go elsewhere in the end, 0 to 1.
    pub share_moved: f64,
    /// Slots that move while their flows stay where they are.
    pub slots_protected: u64,
    /// Slots that move and take their flows along, since the old owner leaves or flows are not remembered.
    pub slots_at_risk: u64,
}

/// Slots of the tables' arena: shared tables count once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// In use now.
    pub slots_now: u64,
    /// In use while both generations are there.
    pub slots_during: u64,
    /// In use afterwards.
    pub slots_after: u64,
    /// That there is room for.
    pub slots_capacity: u64,
    /// Bytes of kernel memory of all maps; a change of `lb.toml` does not change it.
    pub bytes: u64,
}

/// One state that was in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts up from 1; numbers are never used again.
    pub number: u64,
    /// When it came into force.
    pub time: Timestamp,
    /// Who brought it.
    pub author: Author,
    /// Why, in the words of the author.
    pub reason: Option<String>,
    /// What was done, one sentence.
    pub message: String,
    /// Digest of the text of the file.
    pub digest: String,
    /// Bytes of that text.
    pub bytes: u64,
}

/// `GET /v1/history`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Oldest first; the last one is in force.
    pub history: Vec<Record>,
    /// A change that is taken back unless somebody confirms it.
    pub pending: Option<Pending>,
    /// Whether the file was edited since it was applied.
    pub edited: bool,
}

/// A change that waits to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Number of its record.
    pub number: u64,
    /// Number of the record whose state comes back.
    pub back_to: u64,
    /// When.
    pub until: Timestamp,
}

/// `GET /v1/diff`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// What is compared: a record, or what is in force.
    pub from: String,
    /// With what: a record, or the file.
    pub to: String,
    /// Unified diff, empty when they are equal. Secrets are hidden.
    pub diff: String,
}

/// `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Digest of the text that is in force, for `base`.
    pub digest: String,
    /// That text. Secrets are hidden.
    pub text: String,
}
