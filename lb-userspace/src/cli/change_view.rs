//! What changes did or would do, as people read it.

use std::fmt::Write;

use super::{
    context::Look,
    table::{Align::Left, Align::Right, Style, Table, printable},
};
use crate::api::{
    Author, Change, Diff, History, Plan, Via,
    words::{age, bytes, count, percent, percent_of, plural},
};

/// What a change did.
pub(super) fn change(c: &Change) -> String {
    let message = printable(&c.message);
    if !c.changed {
        return format!("{message} (nothing changed; generation {})", c.generation);
    }
    let moved = match c.slots_total {
        0 => "no table touched".into(),
        total => format!(
            "{} of {} moved ({})",
            count(c.slots_moved),
            plural(total, "slot"),
            percent_of(c.slots_moved, total)
        ),
    };
    let mut out = format!("{message}\ngeneration {}: {moved}", c.generation);
    if let Some(until) = c.confirm_until {
        let _ = write!(out, "\nwill be taken back at {until} unless `lb confirm` keeps it");
    }
    out
}

/// `lb plan`. Writing to a `String` cannot fail, hence the ignored results.
pub(super) fn plan(plan: &Plan, look: &Look) -> String {
    let mut out = String::new();
    if !plan.changed {
        out.push_str("nothing would change\n");
    }
    for change in &plan.changes {
        let _ = writeln!(out, "{}", printable(change));
    }
    if !plan.services.is_empty() {
        let mut t = Table::new(&[
            ("SERVICE", Left),
            ("SLOTS", Right),
            ("MOVE NOW", Right),
            ("WHEN READY", Right),
            ("SOURCES", Right),
            ("PROTECTED", Right),
            ("AT RISK", Right),
        ]);
        for s in &plan.services {
            t.row(vec![
                s.name.as_str().into(),
                count(s.slots_total).into(),
                count(s.slots_moved).into(),
                count(s.slots_moved_when_ready).into(),
                percent(s.share_moved).into(),
                count(s.slots_protected).into(),
                count(s.slots_at_risk).into(),
            ]);
        }
        out.push_str(&t.render("", look.color));
    }
    if plan.changed {
        let m = plan.memory;
        let _ = writeln!(
            out,
            "remembered flows: {} stay, at most {} are at risk\nslots in memory: {} now, {} while changing, {} then, \
             room for {}; {} of kernel memory",
            count(plan.flows_protected),
            count(plan.flows_at_risk),
            count(m.slots_now),
            count(m.slots_during),
            count(m.slots_after),
            count(m.slots_capacity),
            bytes(m.bytes)
        );
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "{} {}", Style::Bad.paint("warning:", look.color), printable(warning));
    }
    out
}

/// `lb history`.
pub(super) fn history(history: &History, look: &Look) -> String {
    let mut t = Table::new(&[
        ("N", Right),
        ("TIME", Left),
        ("AGE", Right),
        ("BY", Left),
        ("WHAT", Left),
        ("WHY", Left),
    ]);
    for record in &history.history {
        t.row(vec![
            record.number.to_string().into(),
            record.time.to_string().into(),
            age(record.time, look.now).into(),
            author(&record.author).into(),
            record.message.clone().into(),
            record.reason.clone().unwrap_or_default().into(),
        ]);
    }
    let mut out = t.render("", look.color);
    if let Some(p) = history.pending {
        let _ = writeln!(
            out,
            "change {} will be taken back at {} (to {}) unless `lb confirm` keeps it",
            p.number, p.until, p.back_to
        );
    }
    if history.edited {
        out.push_str(
            "the file was edited since it was applied: `lb diff` shows how, `lb apply` applies it\n",
        );
    }
    out
}

fn author(author: &Author) -> String {
    let name = |uid: u32| {
        let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
        user.map_or_else(|| format!("user {uid}"), |user| user.name)
    };
    match (author.via, author.uid, author.pid) {
        (Via::Socket, Some(uid), Some(pid)) => format!("{} (process {pid})", name(uid)),
        (Via::Socket, Some(uid), None) => name(uid),
        (Via::Socket, None, _) => "unknown".into(),
        (Via::Signal, ..) => "SIGHUP".into(),
        (Via::Start, ..) => "start".into(),
        (Via::Timer, ..) => "time ran out".into(),
    }
}

/// `lb diff`.
pub(super) fn diff(diff: &Diff, look: &Look) -> String {
    if diff.diff.is_empty() {
        return format!("no difference between {} and {}\n", printable(&diff.from), printable(&diff.to));
    }
    let mut out = String::new();
    for line in diff.diff.lines() {
        let style = match line.as_bytes() {
            [b'-', b'-', ..] | [b'+', b'+', ..] => Style::Strong,
            [b'-', ..] => Style::Bad,
            [b'+', ..] => Style::Good,
            _ => Style::Plain,
        };
        out.push_str(&style.paint(&printable(line), look.color));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        Timestamp,
        fake::{NOW, sample_history, sample_plan},
    };

    const LOOK: Look = Look { color: false, now: Timestamp::EPOCH };

    #[test]
    fn changes_say_what_moved_and_until_when() {
        let change_of = |changed, slots_moved, slots_total, confirm_until| Change {
            generation: 13,
            changed,
            slots_moved,
            slots_total,
            message: "web/b4 added".into(),
            record: Some(3),
            confirm_until,
        };
        for (changed, moved, total, want) in [
            (true, 4_095, 16_381, "web/b4 added\ngeneration 13: 4,095 of 16,381 slots moved (25.0 %)"),
            (true, 0, 0, "web/b4 added\ngeneration 13: no table touched"),
            (false, 0, 0, "web/b4 added (nothing changed; generation 13)"),
        ] {
            assert_eq!(change(&change_of(changed, moved, total, None)), want);
        }
        let text = change(&change_of(true, 0, 0, Some(Timestamp::from_unix(NOW))));
        assert!(text.ends_with("taken back at 2031-05-07T17:24:49Z unless `lb confirm` keeps it"), "{text}");
    }

    #[test]
    fn a_plan_names_slots_flows_and_memory() {
        let text = plan(&sample_plan(), &LOOK);
        for words in [
            "service web: backend b4 added",
            "SERVICE   SLOTS  MOVE NOW  WHEN READY  SOURCES  PROTECTED  AT RISK",
            "web      16,381         0       4,095   25.0 %      4,000       95",
            "remembered flows: 42 stay, at most 7 are at risk",
            "16,632 now, 33,013 while changing, 16,632 then, room for 1,048,576; 12.5 MB",
            "warning: hash_seed is fixed",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
        let nothing = Plan { changed: false, changes: Vec::new(), services: Vec::new(), ..sample_plan() };
        assert!(plan(&nothing, &LOOK).starts_with("nothing would change\n"));
    }

    #[test]
    fn a_history_names_author_reason_and_what_waits() {
        let text = history(&sample_history(), &LOOK);
        for words in [
            "start",
            "(process 4711)",
            "rack 4 burns",
            "change 2 will be taken back",
            "`lb apply` applies it",
        ] {
            assert!(text.contains(words), "{words} is not in\n{text}");
        }
    }

    #[test]
    fn differences_have_colours_only_where_wanted_and_steer_no_terminal() {
        let of = |diff: &str| Diff { from: "in force".into(), to: "lb.toml".into(), diff: diff.into() };
        assert_eq!(diff(&of(""), &LOOK), "no difference between in force and lb.toml\n");
        assert_eq!(diff(&of("-a\n+\u{1b}b\n"), &LOOK), "-a\n+\\u{1b}b\n");
        let color = Look { color: true, ..LOOK };
        assert_eq!(diff(&of("-a\n"), &color), "\u{1b}[31m-a\u{1b}[0m\n");
    }
}
