//! Maps of other sizes while the daemon runs: because the configuration says so, or because it has outgrown them.

use log::{info, warn};

use super::core::Core;
use crate::{
    config::Config,
    control::model::Snapshot,
    dataplane::{self, Beside, Capacity, Grace, Installation},
};

impl Core {
    /// The sizes that the maps should have for this configuration, but for tables that grow when they are full.
    pub(super) fn sizes(&self, config: &Config) -> Capacity {
        let present = self.installer.memory().capacity();
        let wanted = Capacity::for_config(config);
        let is_moving = self.installer.is_moving();
        // The flow table can be moved only when it is in one place.
        let flow_buckets = if is_moving { present.flow_buckets } else { wanted.flow_buckets };
        let old_flow_buckets = match is_moving {
            true => present.old_flow_buckets,
            false if flow_buckets != present.flow_buckets => present.flow_buckets,
            false => 1,
        };
        Capacity { limit_buckets: wanted.limit_buckets, flow_buckets, old_flow_buckets, ..present }
    }

    /// Makes `snapshot` the generation in force; in larger maps if these are too small.
    pub(super) fn install_or_grow(
        &mut self,
        config: &Config,
        snapshot: &Snapshot,
    ) -> anyhow::Result<Installation> {
        let (present, sizes) = (self.installer.memory().capacity(), self.sizes(config));
        if sizes != present {
            return self.resize(snapshot, &sizes);
        }
        let ebpf = &mut self.ebpf;
        let mut failed = None;
        let installed = self.installer.install_with(snapshot, &mut |counter| {
            if let Err(error) = dataplane::reset(ebpf, &[counter]) {
                failed = Some(error);
            }
        });
        if let Some(error) = failed {
            warn!("counters of new backends start with what they had before: {error}");
        }
        match installed {
            Ok(installation) => Ok(installation),
            Err(error) => match present.grown(&Capacity::for_config(config), &error) {
                Some(sizes) => {
                    info!("{error}: larger maps are made");
                    self.resize(snapshot, &sizes)
                }
                None => Err(error.into()),
            },
        }
    }

    /// Makes `snapshot` the generation in force in maps of other sizes; no packet and no flow is lost.
    fn resize(&mut self, snapshot: &Snapshot, sizes: &Capacity) -> anyhow::Result<Installation> {
        let present = self.installer.memory().capacity();
        let (mut beside, memory) = Beside::load(&self.pins, &present, sizes)?;
        let mut installer = self.installer.successor(memory);
        let ebpf = &mut beside.ebpf;
        let installed = installer.install_with(snapshot, &mut |counter| {
            if let Err(error) = dataplane::reset(ebpf, &[counter]) {
                warn!("counters of new backends start with what they had before: {error}");
            }
        });
        let installation = match installed {
            Ok(installation) => installation,
            Err(error) => {
                beside.give_up();
                return Err(error.into());
            }
        };
        installer.carry_stamps(&self.installer);
        let counters = (present.backends != sizes.backends).then(|| self.installer.counters());
        let ebpf = beside.switch(&self.pins, &mut self.ebpf, counters.as_deref())?;
        installer.succeed(&self.installer, Grace::kernel());
        info!("maps have other sizes now: {}", present.changes(sizes));
        (self.ebpf, self.installer) = (ebpf, installer);
        Ok(installation)
    }

    /// Ends a change of the flow table's size when the last flow has left its old place.
    pub(super) fn end_move(&mut self) {
        if self.installer.is_moving() && self.swept.in_old == 0 {
            self.installer.has_moved();
            self.rewrite = true;
            self.refresh();
        }
    }
}
