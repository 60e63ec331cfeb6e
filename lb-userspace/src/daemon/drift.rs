//! Maps that somebody else has written to: found by reading them back, told in the status, and written anew.

use std::collections::{BTreeSet, HashMap};

use log::{error, warn};

use super::core::Core;
use crate::{
    api::{Timestamp, types::Drift},
    control::{identity, reconcile::Step},
};

/// Places that a report names.
const NAMED: usize = 20;

impl Core {
    /// Compares the maps with what was installed, and installs it again where they differ.
    pub(super) fn repair(&mut self) {
        let steps = tokio::task::block_in_place(|| self.installer.drift());
        if steps.is_empty() {
            return;
        }
        let what = self.places(&steps);
        warn!("somebody else has written to the maps: {}; they are written anew", what.join(", "));
        self.installer.distrust(&steps);
        self.rewrite = true;
        let config = self.config.clone();
        if let Err(error) = self.install(&config) {
            error!("the maps stay as somebody else has written them: {error:#}");
        }
        self.drift = Drift { count: self.drift.count + 1, last: Some(Timestamp::now()), what };
    }

    /// Where it was, in words.
    fn places(&self, steps: &[Step]) -> Vec<String> {
        let names: HashMap<u64, &str> = self
            .config
            .services
            .iter()
            .map(|s| (identity::service(self.desired.seed(), &s.name), s.name.as_str()))
            .collect();
        let name = |identity: &u64| names.get(identity).copied().unwrap_or("?");
        let place = |step: &Step| match step {
            Step::Slots(service) => Some(format!("table of service {}", name(service))),
            Step::Members(service) => Some(format!("backends of service {}", name(service))),
            Step::Record(service) => Some(format!("record of service {}", name(service))),
            Step::Common => Some("generation, globals or look-up tables".to_owned()),
            Step::Switch | Step::Release(_) => None,
        };
        let places: BTreeSet<String> = steps.iter().filter_map(place).collect();
        places.into_iter().take(NAMED).collect()
    }
}
