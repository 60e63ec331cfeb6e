//! The documents among themselves, and what they repeat of the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Component, Path, PathBuf},
};

use lb_common::abi::Reason;
use lb_userspace::config::Config;

use super::{
    markdown,
    workspace::{File, files, files_with, nothing_wrong, root, text_of},
};

/// The pages that lead to all others.
const ENTRANCES: [&str; 2] = ["README.md", "docs/architecture.md"];
const PACKET_PATH: &str = "docs/packet-path.md";

#[test]
fn every_reason_is_on_the_page_of_the_packets_way() {
    let page = text_of(PACKET_PATH);
    let missing = |reason: &Reason| {
        let name = format!("`{}`", reason.name());
        (!page.contains(&name)).then(|| format!("{PACKET_PATH}: add a row for {name}"))
    };
    nothing_wrong(&Reason::ALL.iter().filter_map(missing).collect::<Vec<_>>());
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut complaints = Vec::new();
    for page in files_with(".md") {
        for link in markdown::links(&page.text) {
            if let Err(why) = follow(&page, &link) {
                complaints.push(format!("{}: link {link:?}: {why}", page.path));
            }
        }
    }
    nothing_wrong(&complaints);
}

#[test]
fn every_document_can_be_reached() {
    let mut linked = BTreeSet::new();
    for entrance in ENTRANCES {
        let page = File { path: entrance.to_owned(), text: text_of(entrance) };
        linked.extend(markdown::links(&page.text).iter().filter_map(|link| target(&page, link)));
    }
    let lost = |file: &File| {
        let reached = linked.contains(&file.path) || ENTRANCES.contains(&file.path.as_str());
        let of_docs = file.path.starts_with("docs/");
        (of_docs && !reached).then(|| format!("{}: link it from {}", file.path, ENTRANCES.join(" or ")))
    };
    nothing_wrong(&files().iter().filter_map(lost).collect::<Vec<_>>());
}

#[test]
fn every_document_that_the_code_names_exists() {
    let mut complaints = Vec::new();
    for file in files_with(".rs") {
        for words in file.text.split("docs/").skip(1) {
            let name: String =
                words.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_./".contains(*c)).collect();
            let path = format!("docs/{}", name.trim_end_matches('.'));
            if path.ends_with(".md") && !root().join(&path).is_file() {
                complaints.push(format!("{}: names {path}, which does not exist", file.path));
            }
        }
    }
    complaints.dedup();
    nothing_wrong(&complaints);
}

/// Whoever copies an example must not be told that it is wrong.
#[test]
fn every_example_of_a_configuration_is_valid() {
    let mut complaints = Vec::new();
    let mut seen = 0;
    for page in files_with(".md") {
        let blocks = markdown::blocks(&page.text);
        for example in blocks.iter().filter(|block| block.language == "toml") {
            seen += 1;
            if let Err(error) = Config::parse("example", &example.text) {
                complaints.push(format!("{}: {error}", page.path));
            }
        }
    }
    assert!(seen > 0);
    nothing_wrong(&complaints);
}

/// The file that a link names, from the top of the workspace; `None`: not on this disk.
fn target(page: &File, link: &str) -> Option<String> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let path = link.split('#').next().unwrap_or_default();
    if path.is_empty() {
        return Some(page.path.clone());
    }
    let mut place = PathBuf::new();
    for part in Path::new(&page.path).parent()?.join(path).components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            other => place.push(other),
        }
    }
    place.to_str().map(str::to_owned)
}

fn follow(page: &File, link: &str) -> Result<(), String> {
    let Some(target) = target(page, link) else { return Ok(()) };
    let path = root().join(&target);
    if !path.exists() {
        return Err(format!("there is no {target}"));
    }
    let Some((_, anchor)) = link.split_once('#') else { return Ok(()) };
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    if markdown::anchors(&text).iter().any(|found| found == anchor) {
        return Ok(());
    }
    Err(format!("{target} has no heading for #{anchor}"))
}

#[cfg(test)]
mod tests {
    use super::{File, target};

    #[test]
    fn links_are_relative_to_their_page() {
        let page = File { path: "docs/decisions/x.markdown".into(), text: String::new() };
        let leads = |link: &str| target(&page, link);
        assert_eq!(leads("../abi.md#x").unwrap(), "docs/abi.md");
        assert_eq!(leads("y.txt").unwrap(), "docs/decisions/y.txt");
        assert_eq!(leads("#here").unwrap(), page.path);
        assert_eq!(leads("https://example.net/a.md"), None);
    }
}
