//! Who depends on whom: the tables of `docs/architecture.md` against the code, both ways.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    markdown, rust,
    workspace::{files_with, nothing_wrong, text_of},
};

const PAGE: &str = "docs/architecture.md";
const SOURCE: &str = "lb-userspace/src/";

/// Who uses whom, and a file that shows it.
type Edges = BTreeMap<(String, String), String>;

#[test]
fn the_modules_of_lb_userspace_use_what_the_table_says() {
    let mut modules = BTreeSet::new();
    let mut edges = Edges::new();
    for file in files_with(".rs") {
        let Some(inside) = file.path.strip_prefix(SOURCE) else { continue };
        // lib.rs and main.rs are the root itself.
        let Some((module, _)) = inside.split_once('/') else { continue };
        modules.insert(module.to_owned());
        for used in uses(&rust::code(&file.text), depth(inside)) {
            if used != module {
                edges.entry((module.to_owned(), used)).or_insert_with(|| file.path.clone());
            }
        }
    }
    compare("Modules of `lb-userspace`", &modules, &edges);
}

#[test]
fn the_crates_use_what_the_table_says() {
    let workspace: toml::Table = text_of("Cargo.toml").parse().unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap().iter().map(|m| m.as_str().unwrap());
    let manifests: BTreeMap<String, (String, toml::Table)> = members
        .map(|member| {
            let path = format!("{member}/Cargo.toml");
            let manifest: toml::Table = text_of(&path).parse().unwrap();
            (manifest["package"]["name"].as_str().unwrap().to_owned(), (path, manifest))
        })
        .collect();
    let crates: BTreeSet<String> = manifests.keys().cloned().collect();
    let mut edges = Edges::new();
    for (name, (path, manifest)) in &manifests {
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let used =
                manifest.get(kind).and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::keys);
            for used in used.filter(|used| crates.contains(*used)) {
                edges.insert((name.clone(), used.clone()), path.clone());
            }
        }
    }
    compare("Crates", &crates, &edges);
}

#[test]
fn the_table_of_modules_has_no_cycle() {
    let mut left: BTreeMap<String, BTreeSet<String>> = listed("Modules of `lb-userspace`");
    loop {
        let free: BTreeSet<String> = left
            .iter()
            .filter(|(_, used)| used.iter().all(|u| !left.contains_key(u)))
            .map(|(m, _)| m.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|module, _| !free.contains(module));
    }
    assert!(left.is_empty(), "{PAGE}: a cycle among {:?}", left.keys());
}

/// Both ways, and every name has a row.
fn compare(heading: &str, names: &BTreeSet<String>, edges: &Edges) {
    let listed = listed(heading);
    let mut complaints = Vec::new();
    for name in names.iter().filter(|name| !listed.contains_key(*name)) {
        complaints.push(format!("{PAGE}, {heading}: there is no row for `{name}`"));
    }
    for name in listed.keys().filter(|name| !names.contains(*name)) {
        complaints.push(format!("{PAGE}, {heading}: there is a row for `{name}`, which does not exist"));
    }
    for ((name, used), file) in edges {
        if listed.get(name).is_some_and(|row| !row.contains(used)) {
            complaints.push(format!(
                "{PAGE}, {heading}: `{name}` uses `{used}` (in {file}), and its row does not say so"
            ));
        }
    }
    for (name, row) in &listed {
        for used in row.iter().filter(|used| !edges.contains_key(&(name.clone(), (*used).clone()))) {
            complaints
                .push(format!("{PAGE}, {heading}: the row of `{name}` says `{used}`, which it does not use"));
        }
    }
    nothing_wrong(&complaints);
}

/// The rows: first cell → names in the second.
fn listed(heading: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = markdown::table(PAGE, &text_of(PAGE), heading);
    let row = |cells: Vec<String>| {
        let name = markdown::spans(&cells[0]);
        (name.concat(), markdown::spans(&cells[1]).into_iter().collect())
    };
    rows.into_iter().map(row).collect()
}

/// How many modules a file's content lies below the root of its crate.
fn depth(inside: &str) -> usize {
    let path = inside.trim_end_matches(".rs").trim_end_matches("/mod");
    path.split('/').count()
}

/// The modules of the root that `code` names by `crate::` or by enough `super::`, and `lb_common`.
fn uses(code: &str, depth: usize) -> BTreeSet<String> {
    let tokens = rust::tokens(code);
    let mut found = BTreeSet::new();
    // For each open brace, whether it belongs to a module.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = tokens[at];
        match token {
            "{" => braces.push(at >= 2 && tokens[at - 2] == "mod"),
            "}" => drop(braces.pop()),
            "lb_common" if tokens.get(at + 1) == Some(&"::") => drop(found.insert(token.to_owned())),
            "crate" if tokens.get(at + 1) == Some(&"::") => found.extend(names(&tokens[at + 2..])),
            "super" => {
                let here = depth + braces.iter().filter(|module| **module).count();
                let steps = tokens[at..].chunks(2).take_while(|pair| *pair == ["super", "::"]).count();
                if steps == here {
                    found.extend(names(&tokens[at + 2 * steps..]));
                }
                at += 2 * steps.max(1) - 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// The first names of what follows a `::`: one, or those of a group in braces.
fn names(tokens: &[&str]) -> Vec<String> {
    if tokens.first() != Some(&"{") {
        return tokens.first().map(|name| (*name).to_owned()).into_iter().collect();
    }
    let (mut depth, mut names) = (0, Vec::new());
    for (i, token) in tokens.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            name if depth == 1 && matches!(tokens[i - 1], "{" | ",") => names.push(name.to_owned()),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::{depth, uses};

    fn found(code: &str, depth: usize) -> Vec<String> {
        uses(code, depth).into_iter().collect()
    }

    #[test]
    fn every_form_of_a_path_is_found() {
        assert_eq!(
            found("use crate::net::{a, b}; pub(crate) fn f() { crate::config::g() }", 1),
            ["config", "net"]
        );
        let group = "use crate::{api::{self, x::{y, z}}, config, net as n,};";
        assert_eq!(found(group, 1), ["api", "config", "net"]);
        assert_eq!(found("use lb_common::abi; struct lb_common;", 1), ["lb_common"]);
    }

    #[test]
    fn enough_supers_reach_the_root() {
        assert_eq!(found("use super::net;", 1), ["net"]);
        assert_eq!(found("use super::net;", 2), [""; 0]);
        assert_eq!(found("use super::super::{net, api};", 2), ["api", "net"]);
        assert_eq!(
            found("mod tests { use super::x; fn f() { super::super::net::g() } } use super::api;", 1),
            ["api", "net"]
        );
    }

    #[test]
    fn depth_counts_modules() {
        let files = ["net/mod.rs", "net/links.rs", "config/edit/mod.rs", "config/edit/tree.rs"];
        assert_eq!(files.map(depth), [1, 2, 2, 3]);
    }
}
