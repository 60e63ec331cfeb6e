//! Brings settings to what is wanted and back, remembering exactly what was changed.
//!
//! The record is written before the first change, with the values from before. So whatever moment ends the agent, the
//! record names every change that may have been made; undoing looks at the present value and leaves alone what does not
//! have the value that we gave it.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use serde::Serialize;

use super::record::{Change, Place, Record, Setting};

/// A host with settings.
pub(super) trait Host {
    /// The present value; `None` when there is no such thing (any more).
    async fn read(&mut self, setting: &Setting) -> anyhow::Result<Option<String>>;
    /// Gives it a value that [`Host::read`] could give.
    async fn write(&mut self, setting: &Setting, value: &str) -> anyhow::Result<()>;
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::agent) struct Report {
    /// Changes made now.
    pub(in crate::agent) changed: Vec<Change>,
    /// Changes made earlier that are still in force.
    pub(in crate::agent) kept: Vec<Change>,
    /// Changes undone now: `set` is the value that they had, `before` the one they have again.
    pub(in crate::agent) undone: Vec<Change>,
    /// What an operator should know, one sentence each.
    pub(in crate::agent) remarks: Vec<String>,
}

/// Brings the settings of `plan` to their values, in this order, and undoes what the record has beyond the plan.
///
/// # Errors
/// The first change that fails. The record then has everything that may have been changed.
pub(super) async fn apply(
    host: &mut impl Host,
    file: &Path,
    here: &Place,
    plan: &[(Setting, String)],
) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let old = match Record::load(file)? {
        Some(record) if record.place == *here => record.changes,
        Some(record) => {
            let why = if record.place.restarted(here) {
                "the host has started again"
            } else {
                "this is another network namespace"
            };
            report.remarks.push(format!("{} is out of date: {why}; beginning anew", file.display()));
            Vec::new()
        }
        None => Vec::new(),
    };
    // Keys first: a backend may have tens of thousands of VIPs.
    let known: HashMap<(&Setting, &str), &Change> =
        old.iter().map(|change| ((&change.setting, change.set.as_str()), change)).collect();
    let mut wanted = Vec::new();
    for (setting, value) in plan {
        let Some(present) = host.read(setting).await? else {
            report.remarks.push(format!("{setting}: there is no such setting here"));
            continue;
        };
        // Ours only while it has the value that we gave it; then the value to go back to is the one from before us.
        let ours = known.get(&(setting, present.as_str())).copied();
        match step(setting, value, &present, ours) {
            Step::Nothing => {}
            Step::Keep(change) => {
                report.kept.push(change.clone());
                wanted.push(change);
            }
            Step::Change(change) => {
                report.changed.push(change.clone());
                wanted.push(change);
            }
        }
    }
    let planned: HashSet<&Setting> = plan.iter().map(|(setting, _)| setting).collect();
    let beyond = |change: &&Change| !planned.contains(&change.setting);
    let stale: Vec<Change> = old.iter().filter(beyond).cloned().collect();
    // A change of a change is two entries until it is made: either may be what an interrupted start leaves behind.
    let changed: HashSet<&Setting> = report.changed.iter().map(|change| &change.setting).collect();
    let replaced: Vec<Change> = old.iter().filter(|c| changed.contains(&c.setting)).cloned().collect();
    let all = stale.iter().chain(&replaced).chain(&wanted).cloned().collect();
    Record::new(here.clone(), all).save(file)?;
    for change in &report.changed {
        host.write(&change.setting, &change.set).await?;
    }
    let left = take_back(host, &stale, &mut report).await;
    let all = left.into_iter().chain(wanted.into_iter().filter(|c| c.before != c.set)).collect();
    Record::new(here.clone(), all).save(file)?;
    Ok(report)
}

/// Undoes every change of the record, last first, and forgets the record.
///
/// # Errors
/// When a change cannot be undone: it stays in the record, the others do not. A record of another network namespace that
/// may still be there is left as it is.
pub(super) async fn undo(host: &mut impl Host, file: &Path, here: &Place) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let Some(record) = Record::load(file)? else { return Ok(report) };
    if record.place.restarted(here) {
        report.remarks.push("the host has started again since: nothing is left of what was prepared".into());
        Record::new(here.clone(), Vec::new()).save(file)?;
        return Ok(report);
    }
    anyhow::ensure!(
        record.place == *here,
        "{} is about another network namespace: run this there, or remove the file if that namespace is gone",
        file.display()
    );
    let left = take_back(host, &record.changes, &mut report).await;
    let done = left.is_empty();
    Record::new(here.clone(), left).save(file)?;
    anyhow::ensure!(done, "not everything could be undone: {}", report.remarks.join("; "));
    Ok(report)
}

/// What a planned setting needs.
enum Step {
    Nothing,
    Keep(Change),
    Change(Change),
}

fn step(setting: &Setting, value: &str, present: &str, ours: Option<&Change>) -> Step {
    if present == value {
        return ours.cloned().map_or(Step::Nothing, Step::Keep);
    }
    let before = ours.map_or(present, |change| &change.before);
    Step::Change(Change { setting: setting.clone(), before: before.into(), set: value.into() })
}

/// Undoes changes, last first; gives those that could not be undone.
async fn take_back(host: &mut impl Host, changes: &[Change], report: &mut Report) -> Vec<Change> {
    let mut left = Vec::new();
    for (at, change) in changes.iter().enumerate().rev() {
        let Change { setting, before, set } = change;
        let outcome = match host.read(setting).await {
            Ok(Some(present)) if present == *before => Ok(()),
            Ok(Some(present)) if present == *set => host.write(setting, before).await.map(|()| {
                report.undone.push(change.clone());
            }),
            // An interrupted change of a change: the entry before this one has it.
            Ok(Some(present)) if changes[..at].iter().any(|c| c.setting == *setting && c.set == present) => {
                Ok(())
            }
            Ok(Some(present)) => {
                report.remarks.push(format!(
                    "{setting} is {present} now, lb had set it to {set} (before: {before}): somebody else changed it \
                     since, left alone"
                ));
                Ok(())
            }
            Ok(None) => {
                report.remarks.push(format!("{setting} is gone, and what was set with it"));
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            report.remarks.push(format!("{setting}: {error:#}"));
            left.insert(0, change.clone());
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tempfile::TempDir;

    use super::*;

    /// Settings in memory; writing to `broken` fails.
    #[derive(Default)]
    struct Fake {
        values: BTreeMap<String, String>,
        broken: Option<String>,
    }

    impl Host for Fake {
        async fn read(&mut self, setting: &Setting) -> anyhow::Result<Option<String>> {
            Ok(self.values.get(&setting.to_string()).cloned())
        }

        async fn write(&mut self, setting: &Setting, value: &str) -> anyhow::Result<()> {
            anyhow::ensure!(self.broken.as_deref() != Some(&*setting.to_string()), "no");
            self.values.insert(setting.to_string(), value.into());
            Ok(())
        }
    }

    fn host(values: &[(&str, &str)]) -> Fake {
        let values = values.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Fake { values, broken: None }
    }

    fn plan(values: &[(&str, &str)]) -> Vec<(Setting, String)> {
        values.iter().map(|(k, v)| (Setting::Sysctl { name: (*k).into() }, (*v).into())).collect()
    }

    struct World {
        host: Fake,
        here: Place,
        directory: TempDir,
    }

    impl World {
        fn new(values: &[(&str, &str)]) -> Self {
            Self { host: host(values), here: Place::here().unwrap(), directory: tempfile::tempdir().unwrap() }
        }

        fn file(&self) -> std::path::PathBuf {
            self.directory.path().join("agent-main.json")
        }

        async fn apply(&mut self, values: &[(&str, &str)]) -> anyhow::Result<Report> {
            let file = self.file();
            apply(&mut self.host, &file, &self.here, &plan(values)).await
        }

        async fn undo(&mut self) -> anyhow::Result<Report> {
            let file = self.file();
            undo(&mut self.host, &file, &self.here).await
        }

        fn has(&self, values: &[(&str, &str)]) {
            assert_eq!(self.host.values, host(values).values);
        }
    }

    #[tokio::test]
    async fn undoing_is_the_exact_inverse_and_both_may_be_done_twice() {
        let mut world = World::new(&[("a", "0"), ("b", "2"), ("c", "1")]);
        let report = world.apply(&[("a", "1"), ("b", "2"), ("c", "2")]).await.unwrap();
        assert_eq!((report.changed.len(), report.kept.len()), (2, 0));
        let report = world.apply(&[("a", "1"), ("b", "2"), ("c", "2")]).await.unwrap();
        assert_eq!((report.changed.len(), report.kept.len()), (0, 2));
        world.has(&[("a", "1"), ("b", "2"), ("c", "2")]);
        assert_eq!(world.undo().await.unwrap().undone.len(), 2);
        world.has(&[("a", "0"), ("b", "2"), ("c", "1")]);
        assert!(!world.file().exists());
        assert_eq!(world.undo().await.unwrap(), Report::default());
    }

    #[tokio::test]
    async fn what_somebody_else_changed_since_is_left_alone_with_a_sentence() {
        let mut world = World::new(&[("a", "0"), ("b", "0")]);
        world.apply(&[("a", "1"), ("b", "1")]).await.unwrap();
        world.host.values.insert("a".into(), "2".into());
        let report = world.undo().await.unwrap();
        world.has(&[("a", "2"), ("b", "0")]);
        assert_eq!(report.remarks.len(), 1);
        assert!(report.remarks[0].starts_with("a is 2 now, lb had set it to 1 (before: 0)"), "{report:?}");
    }

    #[tokio::test]
    async fn a_value_that_was_lost_is_set_again_and_goes_back_to_what_it_was_last() {
        let mut world = World::new(&[("a", "0")]);
        world.apply(&[("a", "1")]).await.unwrap();
        world.host.values.insert("a".into(), "3".into());
        assert_eq!(world.apply(&[("a", "1")]).await.unwrap().changed.len(), 1);
        world.undo().await.unwrap();
        world.has(&[("a", "3")]);
    }

    #[tokio::test]
    async fn what_is_no_longer_wanted_is_undone() {
        let mut world = World::new(&[("a", "0"), ("b", "0")]);
        world.apply(&[("a", "1"), ("b", "1")]).await.unwrap();
        let report = world.apply(&[("b", "1")]).await.unwrap();
        assert_eq!((report.undone.len(), report.kept.len()), (1, 1));
        world.has(&[("a", "0"), ("b", "1")]);
        world.undo().await.unwrap();
        world.has(&[("a", "0"), ("b", "0")]);
    }

    #[tokio::test]
    async fn a_start_that_broke_off_is_undone_and_can_be_resumed() {
        for resume in [false, true] {
            let mut world = World::new(&[("a", "0"), ("b", "0"), ("c", "0")]);
            world.host.broken = Some("b".into());
            assert!(world.apply(&[("a", "1"), ("b", "1"), ("c", "1")]).await.is_err());
            world.has(&[("a", "1"), ("b", "0"), ("c", "0")]);
            world.host.broken = None;
            if resume {
                world.apply(&[("a", "1"), ("b", "1"), ("c", "1")]).await.unwrap();
                world.has(&[("a", "1"), ("b", "1"), ("c", "1")]);
            }
            assert_eq!(world.undo().await.unwrap().remarks, [""; 0]);
            world.has(&[("a", "0"), ("b", "0"), ("c", "0")]);
        }
    }

    #[tokio::test]
    async fn a_change_of_a_change_goes_back_to_the_first_value_wherever_it_breaks_off() {
        for broken in [false, true] {
            let mut world = World::new(&[("a", "0")]);
            world.apply(&[("a", "1")]).await.unwrap();
            world.host.broken = broken.then(|| "a".into());
            assert_eq!(world.apply(&[("a", "2")]).await.is_err(), broken);
            world.host.broken = None;
            assert_eq!(world.undo().await.unwrap().remarks, [""; 0]);
            world.has(&[("a", "0")]);
        }
        let mut world = World::new(&[("a", "0")]);
        world.apply(&[("a", "1")]).await.unwrap();
        world.apply(&[("a", "0")]).await.unwrap();
        assert!(!world.file().exists(), "nothing is left to undo");
    }

    #[tokio::test]
    async fn what_cannot_be_undone_stays_in_the_record() {
        let mut world = World::new(&[("a", "0"), ("b", "0")]);
        world.apply(&[("a", "1"), ("b", "1")]).await.unwrap();
        world.host.broken = Some("a".into());
        let error = world.undo().await.unwrap_err().to_string();
        assert!(error.contains("a: no"), "{error}");
        world.has(&[("a", "1"), ("b", "0")]);
        world.host.broken = None;
        assert_eq!(world.undo().await.unwrap().undone.len(), 1);
        world.has(&[("a", "0"), ("b", "0")]);
    }

    #[tokio::test]
    async fn after_a_restart_nothing_is_undone_and_prepare_begins_anew() {
        let mut world = World::new(&[("a", "0")]);
        world.apply(&[("a", "1")]).await.unwrap();
        let before = Place::with_boot(&world.here, "another");
        let now = std::mem::replace(&mut world.here, before);
        assert_eq!(world.apply(&[("a", "2")]).await.unwrap().remarks.len(), 1);
        world.here = now;
        let report = world.undo().await.unwrap();
        assert!(report.remarks[0].contains("started again"), "{report:?}");
        world.has(&[("a", "2")]);
        assert!(!world.file().exists());
    }

    #[tokio::test]
    async fn a_record_of_another_namespace_is_not_touched() {
        let mut world = World::new(&[("a", "0")]);
        world.apply(&[("a", "1")]).await.unwrap();
        world.here = Place::with_namespace(&world.here, 1);
        let error = world.undo().await.unwrap_err().to_string();
        assert!(error.contains("another network namespace"), "{error}");
        assert!(world.file().exists());
        world.has(&[("a", "1")]);
    }

    #[tokio::test]
    async fn a_setting_that_this_host_does_not_have_is_remarked() {
        let mut world = World::new(&[]);
        let report = world.apply(&[("a", "1")]).await.unwrap();
        assert_eq!(report.remarks, ["a: there is no such setting here"]);
        assert!(!world.file().exists());
    }
}
