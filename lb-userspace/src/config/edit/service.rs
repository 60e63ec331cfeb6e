//! Whole services: added behind everything else, removed with all that belongs to them.

use serde::Serialize;
use toml_edit::{Item, Table};

use super::{
    Document, check_port, check_reachable, find_service,
    layout::{entries, string},
    request::{EditError, ServiceSpec},
    text::{Splices, Text},
    tree::{self, List, Node},
};
use crate::config::{
    problem::quoted,
    value::{ValueError, check_service_name},
};

impl Document {
    /// Adds a service as blocks at the end of the file.
    ///
    /// # Errors
    /// The name is taken or no file may hold it, or the services of the file are no blocks.
    pub fn add_service(&mut self, spec: &ServiceSpec) -> Result<(), EditError> {
        check_service_name(&spec.name).map_err(|error| EditError::Value { key: "name", error })?;
        for backend in &spec.backends {
            check_reachable(backend.address)?;
            check_port(backend.port)?;
        }
        let lines = lines(spec)?;
        self.change(|root, text, splices| {
            let form = || EditError::Form("the list of services".to_owned());
            let list = root.list("service").ok_or_else(form)?;
            if list.nodes().iter().any(|service| service.string("name") == Some(&spec.name)) {
                return Err(EditError::ServiceExists { name: spec.name.clone() });
            }
            if matches!(list, List::Inline(_)) {
                return Err(form());
            }
            let mut block = String::new();
            if text.lacks_newline(text.all.len()) {
                block += text.newline;
            }
            for line in &lines {
                block += line;
                block += text.newline;
            }
            splices.insert(text.all.len(), block);
            Ok(())
        })
    }

    /// Removes a service with its backends and the comments that belong to them.
    ///
    /// # Errors
    /// No such service.
    pub fn remove_service(&mut self, service: &str) -> Result<(), EditError> {
        self.change(|root, text, splices| {
            let node = find_service(root, service)?;
            let removed = match (node, root.list("service")) {
                (Node::Block(table), _) => remove_blocks(text, table, splices),
                (Node::Inline(_), Some(List::Inline(array))) => {
                    let index = List::Inline(array)
                        .nodes()
                        .iter()
                        .position(|node| node.string("name") == Some(service));
                    index
                        .zip(tree::sequence_of(array))
                        .map(|(index, items)| items.remove(text, index, splices))
                }
                (Node::Inline(_), _) => None,
            };
            removed.ok_or_else(|| EditError::Form(format!("service {}", quoted(service))))
        })
    }
}

/// A block and every block below it.
fn remove_blocks(text: Text<'_>, table: &Table, splices: &mut Splices) -> Option<()> {
    if !table.is_implicit() && !table.is_dotted() {
        tree::remove_block(text, table, splices)?;
    }
    for (_, item) in table.iter() {
        match item {
            Item::Table(child) => remove_blocks(text, child, splices)?,
            Item::ArrayOfTables(children) => {
                children.iter().try_for_each(|child| remove_blocks(text, child, splices))?;
            }
            Item::Value(_) | Item::None => {}
        }
    }
    Some(())
}

fn lines(spec: &ServiceSpec) -> Result<Vec<String>, EditError> {
    let list = |items: Vec<String>| format!("[{}]", items.join(", "));
    let ports = match spec.ports.as_slice() {
        [any] if any == "any" => string("any"),
        ports => list(ports.iter().map(|port| port_word(port)).collect::<Result<_, _>>()?),
    };
    let mut lines = vec![
        String::new(),
        "[[service]]".to_owned(),
        format!("name = {}", string(&spec.name)),
        format!("addresses = {}", list(spec.addresses.iter().map(|a| string(&a.to_string())).collect())),
        format!("ports = {ports}"),
    ];
    let optional = [
        ("protocol", spec.protocol.as_ref().map(word)),
        ("affinity", spec.affinity.as_ref().map(word)),
        ("forward", spec.forward.as_ref().map(word)),
        ("table_slots", spec.table_slots.map(|slots| slots.to_string())),
    ];
    lines.extend(optional.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}", value?))));
    for backend in &spec.backends {
        lines.extend([String::new(), "[[service.backend]]".to_owned()]);
        lines.extend(entries(backend));
    }
    Ok(lines)
}

/// A port as a number, a range as text, as people write them.
fn port_word(port: &str) -> Result<String, EditError> {
    let wrong = || EditError::Value {
        key: "ports",
        error: ValueError::new(port, "ports from 1 to 65535, ranges such as 8000-8100, or any"),
    };
    let digits = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).map(|port| port.to_string());
    match port.split_once('-') {
        None => digits(port).ok_or_else(wrong),
        Some((first, last)) => {
            let (first, last) = digits(first).zip(digits(last)).ok_or_else(wrong)?;
            Ok(string(&format!("{first}-{last}")))
        }
    }
}

/// The word that the file has for a value.
fn word(value: &impl Serialize) -> String {
    let word = serde_json::to_value(value).ok();
    string(word.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Forward, Protocol, edit::BackendSpec};

    const TEXT: &str = "# The balancer.\n[daemon]\ninterfaces = [\"eth0\"]\n\n# Users.\n[[service]]\nname = \"web\"   # \
                        seen\naddresses = [\"192.0.2.10\"]\nports = [80]\n\n[service.health]\ntype = \"tcp\"\n\n# \
                        Old.\n[[service.backend]]\naddress = \"198.51.100.11\"\n\n# Names.\n[[service]]\nname = \
                        \"dns\"\naddresses = [\"192.0.2.53\"]\nports = [53]\nprotocol = \"udp\"\n";

    fn spec() -> ServiceSpec {
        ServiceSpec {
            name: "api".into(),
            addresses: vec!["192.0.2.20".parse().unwrap(), "192.0.2.21".parse().unwrap()],
            ports: vec!["443".into(), "8000-8100".into()],
            protocol: Some(Protocol::Both),
            affinity: None,
            forward: Some(Forward::L2),
            table_slots: Some(1_021),
            backends: vec![BackendSpec {
                name: Some("b1".into()),
                address: "198.51.100.12".parse().unwrap(),
                port: None,
                weight: Some(7),
                state: None,
            }],
        }
    }

    #[test]
    fn a_service_comes_and_goes_and_the_rest_stays_byte_for_byte() {
        for text in [TEXT, TEXT.trim_end()] {
            let mut document = Document::parse("lb.toml", text).unwrap();
            document.add_service(&spec()).unwrap();
            assert!(document.as_str().starts_with(text));
            let config = Config::parse("lb.toml", document.as_str()).unwrap();
            let api = &config.services[2];
            assert_eq!((api.name.as_str(), api.addresses.len(), api.table_slots), ("api", 2, 1_021));
            assert_eq!((api.protocol, api.forward, api.backends[0].weight), (Protocol::Both, Forward::L2, 7));
            document.remove_service("api").unwrap();
            assert_eq!(document.as_str().trim_end(), text.trim_end());
        }
    }

    #[test]
    fn a_service_goes_with_its_comments_backends_and_checks() {
        let mut document = Document::parse("lb.toml", TEXT).unwrap();
        document.remove_service("web").unwrap();
        let left = document.as_str();
        for gone in ["web", "Users", "Old", "198.51.100.11", "health", "seen"] {
            assert!(!left.contains(gone), "{gone} is still in\n{left}");
        }
        for kept in ["# The balancer.", "# Names.", "\"dns\""] {
            assert!(left.contains(kept), "{kept} is not in\n{left}");
        }
        assert_eq!(Config::parse("lb.toml", left).unwrap().services.len(), 1);
    }

    #[test]
    fn inline_services_can_be_removed_and_not_added() {
        let text = "service = [{ name = \"a\", addresses = [\"192.0.2.1\"], ports = [1] }, { name = \"b\", addresses = \
                    [\"192.0.2.2\"], ports = [1] }]\n";
        let mut document = Document::parse("lb.toml", text).unwrap();
        assert!(matches!(document.add_service(&spec()), Err(EditError::Form(_))));
        document.remove_service("a").unwrap();
        assert_eq!(Config::parse("lb.toml", document.as_str()).unwrap().services[0].name, "b");
    }

    #[test]
    fn names_and_ports_are_checked() {
        let mut document = Document::parse("lb.toml", TEXT).unwrap();
        let taken = ServiceSpec { name: "web".into(), ..spec() };
        assert!(matches!(document.add_service(&taken), Err(EditError::ServiceExists { .. })));
        for bad in ["0", "65536", "80-", "http", "1-2-3", "\" = 1"] {
            let wrong = ServiceSpec { ports: vec![bad.into()], ..spec() };
            let error = document.add_service(&wrong).unwrap_err();
            assert!(matches!(error, EditError::Value { key: "ports", .. }), "{bad}: {error}");
        }
        assert!(document.remove_service("wbe").unwrap_err().to_string().contains("did you mean \"web\"?"));
        assert_eq!(document.as_str(), TEXT);
    }
}
