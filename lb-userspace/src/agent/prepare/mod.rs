//! `--prepare` and `--unprepare`: the settings that a backend needs, made and undone exactly.
//!
//! ```text
//! plan (what this host needs) ─► reconcile ─► record on disk, then host (sysctl files, rtnetlink)
//! ```

mod host;
mod plan;
mod reconcile;
mod record;

use std::path::Path;

pub(super) use host::sysctl;
pub(super) use plan::{Owner, Owners, elsewhere};
use reconcile::Host;
pub(super) use reconcile::Report;
use record::Change;
pub(super) use record::{Place, Record};

use self::host::System;
use crate::{config, net::Netlink};

/// Makes what a backend with this configuration needs; what an earlier configuration needed and this one does not is
/// undone.
///
/// # Errors
/// When something cannot be had or set. What was changed until then stays recorded.
pub(super) async fn prepare(
    netlink: &Netlink,
    file: &Path,
    wanted: &config::Agent,
) -> anyhow::Result<Report> {
    let plan = plan::plan(netlink, wanted).await?;
    let here = Place::here()?;
    let mut report = reconcile::apply(&mut System::new(netlink), file, &here, &plan.settings).await?;
    report.remarks.extend(plan.remarks);
    Ok(report)
}

/// Undoes what [`prepare`] did.
///
/// # Errors
/// When something cannot be undone; it stays recorded.
pub(super) async fn unprepare(netlink: &Netlink, file: &Path) -> anyhow::Result<Report> {
    reconcile::undo(&mut System::new(netlink), file, &Place::here()?).await
}

/// The recorded changes with the present values of their settings (`None`: gone).
///
/// # Errors
/// When the record cannot be read.
pub(super) async fn recorded(
    netlink: &Netlink,
    record: &Record,
) -> anyhow::Result<Vec<(Change, Option<String>)>> {
    let mut host = System::new(netlink);
    let mut all = Vec::new();
    for change in &record.changes {
        let present = host.read(&change.setting).await?;
        all.push((change.clone(), present));
    }
    Ok(all)
}
