//! Commands that documents tell readers to type: each exists, with these options.

use std::process::Command;

use clap::error::ErrorKind;

use super::{
    markdown, rust,
    workspace::{nothing_wrong, text_of},
};

/// The pages that people copy commands from.
const PAGES: [&str; 3] = ["README.md", "docs/operations.md", "docs/architecture.md"];
/// Namespaces of the lab.
const ROLES: [&str; 6] = ["client", "router", "lb", "b1", "b2", "b3"];

#[test]
fn every_command_to_type_exists() {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for page in PAGES {
        for line in typed(&text_of(page)) {
            let words: Vec<&str> = line.split_whitespace().collect();
            seen += usize::from(is_ours(&words));
            if let Err(why) = check_typed(&words) {
                complaints.push(format!("{page}: {line:?}: {why}"));
            }
        }
    }
    assert!(seen > 10, "only {seen} commands of ours found");
    nothing_wrong(&complaints);
}

/// Words in the text, which may have placeholders and leave arguments out.
#[test]
fn every_command_that_is_mentioned_exists() {
    let mut complaints = Vec::new();
    for page in PAGES {
        for span in markdown::spans(&text_of(page)) {
            let words: Vec<&str> = span.split_whitespace().collect();
            if is_ours(&words)
                && let Err(why) = check_mentioned(&words)
            {
                complaints.push(format!("{page}: `{span}`: {why}"));
            }
        }
    }
    nothing_wrong(&complaints);
}

fn is_ours(words: &[&str]) -> bool {
    matches!(words, ["lb", _, ..] | ["cargo", "xtask", _, ..])
}

/// The lines behind a prompt in blocks for a console, without remarks at their ends.
fn typed(text: &str) -> Vec<String> {
    let blocks = markdown::blocks(text);
    let consoles = blocks.iter().filter(|block| block.language == "console");
    let lines = consoles.flat_map(|block| block.text.lines());
    let commands = lines.filter_map(|line| line.strip_prefix("$ ").or(line.strip_prefix("# ")));
    commands.filter_map(|line| line.split(" # ").next()).map(str::to_owned).collect()
}

fn check_typed(words: &[&str]) -> Result<(), String> {
    match words {
        ["lb", ..] => parse_lb(words),
        ["cargo", "xtask", "run", rest @ ..] if on_interface(rest) => {
            parse_lb(&[&["lb", "run"], rest].concat())
        }
        ["cargo", "xtask", "run", rest @ ..] => ask_lab(&[&["run"], rest].concat()),
        ["cargo", "xtask", "lab", "exec", role, "--", command @ ..] => {
            if !ROLES.contains(role) {
                return Err(format!("the lab has no {role}"));
            }
            ask_lab(&["exec"]).and_then(|()| check_typed(command))
        }
        ["cargo", "xtask", "lab", rest @ ..] => ask_lab(rest),
        ["cargo", "xtask", verb, rest @ ..] => check_xtask(verb, rest),
        _ => Ok(()),
    }
}

fn check_mentioned(words: &[&str]) -> Result<(), String> {
    match words {
        ["lb", rest @ ..] => walk_lb(rest),
        ["cargo", "xtask", "lab", verb, ..] => ask_lab(&[*verb]),
        ["cargo", "xtask", "run" | "lab", ..] => check_typed(words),
        ["cargo", "xtask", verb, rest @ ..] => check_xtask(verb, rest),
        _ => Ok(()),
    }
}

/// The rule of `xtask/src/run.rs`.
fn on_interface(words: &[&str]) -> bool {
    words.iter().any(|word| matches!(word.split('=').next(), Some("--interface" | "--iface")))
}

/// The whole line as `lb` would take it.
fn parse_lb(words: &[&str]) -> Result<(), String> {
    match lb_userspace::cli::command().try_get_matches_from(words) {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => Ok(()),
        Err(error) => Err(error.to_string().replace('\n', " ")),
    }
}

/// Verbs and options only: values may be missing, or words for values.
fn walk_lb(words: &[&str]) -> Result<(), String> {
    let mut command = lb_userspace::cli::command();
    // Gives every verb the options of all verbs.
    command.build();
    let mut at = &command;
    for word in words {
        if let Some(long) = word.strip_prefix("--") {
            let name = long.split('=').next().unwrap_or_default();
            let known = |arg: &clap::Arg| {
                arg.get_long() == Some(name)
                    || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
            };
            if name != "help" && !at.get_arguments().any(known) {
                return Err(format!("`{}` has no option {word}", at.get_name()));
            }
        } else if let Some(short) = word.strip_prefix('-') {
            if !at.get_arguments().any(|arg| arg.get_short().map(String::from).as_deref() == Some(short)) {
                return Err(format!("`{}` has no option {word}", at.get_name()));
            }
        } else if let Some(verb) = at.find_subcommand(word) {
            at = verb;
        } else if at.is_subcommand_required_set() {
            return Err(format!("`{}` has no command {word}", at.get_name()));
        }
    }
    Ok(())
}

/// What the lab itself says: help instead of work, unless a word before it is wrong.
fn ask_lab(words: &[&str]) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_lab")).args(words).arg("--help").output().unwrap();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).replace('\n', " "))
    }
}

/// xtask is a program of its own and no library: its source says what it knows.
fn check_xtask(verb: &str, words: &[&str]) -> Result<(), String> {
    let source = rust::code(&text_of("xtask/src/main.rs"));
    let tokens = rust::tokens(&source);
    let verbs = tokens.windows(2).position(|pair| pair == ["enum", "Verb"]).map(|at| &tokens[at..]);
    let name = verb.get(..1).unwrap_or_default().to_uppercase() + verb.get(1..).unwrap_or_default();
    if !verbs.is_some_and(|tokens| tokens.contains(&name.as_str())) {
        return Err(format!("xtask has no verb {verb}"));
    }
    let suites = text_of("xtask/src/suites.rs");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--suite" => {
                let name = words.next().ok_or("--suite names none")?;
                if !suites.contains(&format!("suite(\"{name}\"")) {
                    return Err(format!("there is no suite {name}"));
                }
            }
            option => {
                let field = option.trim_start_matches("--").replace('-', "_");
                if !tokens.windows(2).any(|pair| pair == [field.as_str(), ":"]) {
                    return Err(format!("xtask {verb} has no {option}"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check_mentioned, check_typed};

    fn typed(line: &str) -> bool {
        check_typed(&line.split_whitespace().collect::<Vec<_>>()).is_ok()
    }

    fn mentioned(line: &str) -> bool {
        check_mentioned(&line.split_whitespace().collect::<Vec<_>>()).is_ok()
    }

    #[test]
    fn right_lines_pass_and_wrong_ones_do_not() {
        for (line, right) in [
            ("lb backend drain web/b1", true),
            ("lb backend drian web/b1", false),
            ("lb run --config lb.toml --detach-on-exit", true),
            ("lb run --config lb.toml --detach", false),
            ("cargo xtask run --requests 3000 --exit", true),
            ("cargo xtask run --request 3000", false),
            ("cargo xtask run --iface=eth1 --config lb.toml", true),
            ("cargo xtask run --interface eth1", false),
            ("cargo xtask lab exec lb -- lb status", true),
            ("cargo xtask lab exec lb -- lb stats", false),
            ("cargo xtask lab exec b9 -- true", false),
            ("cargo xtask test --suite unit", true),
            ("cargo xtask test --suite units", false),
            ("cargo xtask build --release", true),
            ("cargo xtask built", false),
        ] {
            assert_eq!(typed(line), right, "{line}");
        }
    }

    #[test]
    fn mentions_may_leave_arguments_out() {
        for (line, right) in [
            ("lb backend set", true),
            ("lb backend sets", false),
            ("lb agent --prepare", true),
            ("lb agent --prepared", false),
            ("lb status --name NAME", true),
            ("lb check -c FILE", true),
            ("lb check -x FILE", false),
            ("cargo xtask lab exec ROLE -- COMMAND", true),
            ("cargo xtask lab excc", false),
        ] {
            assert_eq!(mentioned(line), right, "{line}");
        }
    }
}
