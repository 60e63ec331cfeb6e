//! Changes to the text of `lb.toml` that leave every other byte of it alone: comments, order, spacing, line ends.
//!
//! `toml_edit` tells where things stand; the change itself is a replacement in the text. Nothing is validated here
//! beyond the values of a request: the caller parses the result with [`Config::parse`](super::Config::parse) before it
//! is used.

mod layout;
mod list;
mod piece;
mod request;
mod secret;
mod service;
mod text;
mod tree;

use std::net::IpAddr;

pub use self::piece::in_piece;
pub use self::request::{BackendPatch, BackendSpec, EditError, ServiceSpec};
pub use self::secret::hidden;
use self::{
    layout::{append, entries, remove_limit, set_fields, write_limit},
    text::{Splices, Text},
    tree::{List, Node},
};
use super::{
    problem::{ConfigError, quoted},
    types::Limit,
    value::{ValueError, check_backend_name, check_destination},
};

/// The text of a `lb.toml` that is being changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    text: String,
}

impl std::fmt::Display for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

type Tree<'t> = toml_edit::Document<&'t str>;

impl Document {
    /// Takes a text; `name` is what errors call it.
    ///
    /// # Errors
    /// It is no TOML.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        super::store::check_size(name, text.len() as u64)?;
        match Tree::parse(text) {
            Ok(_) => Ok(Self { text: text.to_owned() }),
            Err(error) => Err(super::syntax_error(name, text, error.message(), error.span())),
        }
    }

    /// The text with the changes so far.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Names of the services that have a backend of this name, in the order of the file.
    #[must_use]
    pub fn services_with(&self, backend: &str) -> Vec<String> {
        let Ok(tree) = Tree::parse(self.text.as_str()) else { return Vec::new() };
        let services =
            Node::Block(tree.as_table()).list("service").map(|list| list.nodes()).unwrap_or_default();
        let has = |service: &Node<'_>| {
            let list = service.list("backend");
            list.is_some_and(|list| list.nodes().iter().any(|b| b.backend_name().as_deref() == Some(backend)))
        };
        services.iter().filter(|s| has(s)).filter_map(|s| s.string("name")).map(str::to_owned).collect()
    }

    /// Adds a backend behind the others of a service, in the form that they have.
    ///
    /// # Errors
    /// No such service, the name or the address is taken, a name or an address that no file may hold.
    pub fn add_backend(&mut self, service: &str, spec: &BackendSpec) -> Result<(), EditError> {
        let name = spec.name.clone().unwrap_or_else(|| spec.address.to_string());
        check_backend_name(&name).map_err(|error| EditError::Value { key: "name", error })?;
        check_reachable(spec.address)?;
        check_port(spec.port)?;
        self.change(|root, text, splices| {
            let node = find_service(root, service)?;
            let form = || EditError::Form(format!("the list of backends of service {}", quoted(service)));
            let list = node.list("backend").ok_or_else(form)?;
            if list.nodes().iter().any(|backend| backend.backend_name().as_ref() == Some(&name)) {
                return Err(EditError::BackendExists { service: service.to_owned(), name: name.clone() });
            }
            check_free(service, &list, spec.address, None)?;
            append(node, &list, &entries(spec), text, splices).ok_or_else(form)
        })
    }

    /// Removes a backend with the comments that belong to it. The last one may go too.
    ///
    /// # Errors
    /// No such service or backend.
    pub fn remove_backend(&mut self, service: &str, backend: &str) -> Result<(), EditError> {
        self.change(|root, text, splices| {
            let list = backends(find_service(root, service)?, service)?;
            let index = find_backend(&list, service, backend)?;
            let removed = match &list {
                List::Blocks(tables) => {
                    tables.get(index).and_then(|table| tree::remove_block(text, table, splices))
                }
                List::Inline(array) => {
                    tree::sequence_of(array).map(|items| items.remove(text, index, splices))
                }
                List::Absent => None,
            };
            removed.ok_or_else(|| form_of_backend(service, backend))
        })
    }

    /// Changes fields of a backend. A field that already has the value, be it by default, is left alone.
    ///
    /// # Errors
    /// No such service or backend, an empty patch, an address that is taken or that no file may hold.
    pub fn set_backend(
        &mut self,
        service: &str,
        backend: &str,
        patch: BackendPatch,
    ) -> Result<(), EditError> {
        if patch == BackendPatch::default() {
            return Err(EditError::NothingToChange);
        }
        check_port(patch.port)?;
        self.change(|root, text, splices| {
            let list = backends(find_service(root, service)?, service)?;
            let index = find_backend(&list, service, backend)?;
            if let Some(address) = patch.address {
                check_reachable(address)?;
                check_free(service, &list, address, Some(backend))?;
            }
            let nodes = list.nodes();
            let node = nodes.get(index).ok_or_else(|| form_of_backend(service, backend))?;
            set_fields(*node, patch, text, splices).ok_or_else(|| form_of_backend(service, backend))
        })
    }

    /// Sets the limit of a service, or removes it.
    ///
    /// # Errors
    /// No such service.
    pub fn set_limit(&mut self, service: &str, limit: Option<Limit>) -> Result<(), EditError> {
        self.change(|root, text, splices| {
            let node = find_service(root, service)?;
            let done = match limit {
                Some(limit) => write_limit(node, limit, text, splices),
                None => remove_limit(node, text, splices),
            };
            done.ok_or_else(|| EditError::Form(format!("the limit of service {}", quoted(service))))
        })
    }

    /// Makes one change, if its result is still TOML.
    fn change(
        &mut self,
        make: impl FnOnce(Node<'_>, Text<'_>, &mut Splices) -> Result<(), EditError>,
    ) -> Result<(), EditError> {
        let form = || EditError::Form("this part of the file".to_owned());
        let mut splices = Splices::default();
        {
            // Two trees at a time would double the memory that a large file costs.
            let tree = Tree::parse(self.text.as_str()).map_err(|_| form())?;
            make(Node::Block(tree.as_table()), Text::new(&self.text), &mut splices)?;
        }
        let changed = splices.apply(&self.text).filter(|changed| Tree::parse(changed.as_str()).is_ok());
        self.text = changed.ok_or_else(form)?;
        Ok(())
    }
}

fn find_service<'d>(root: Node<'d>, name: &str) -> Result<Node<'d>, EditError> {
    let services = root.list("service").map(|list| list.nodes()).unwrap_or_default();
    services.iter().find(|service| service.string("name") == Some(name)).copied().ok_or_else(|| {
        let known = services.iter().filter_map(|service| service.string("name")).map(str::to_owned).collect();
        EditError::NoService { name: name.to_owned(), known }
    })
}

fn backends<'d>(service: Node<'d>, name: &str) -> Result<List<'d>, EditError> {
    let form = || EditError::Form(format!("the list of backends of service {}", quoted(name)));
    service.list("backend").ok_or_else(form)
}

fn find_backend(list: &List<'_>, service: &str, name: &str) -> Result<usize, EditError> {
    let names: Vec<_> = list.nodes().iter().map(Node::backend_name).collect();
    names.iter().position(|found| found.as_deref() == Some(name)).ok_or_else(|| EditError::NoBackend {
        service: service.to_owned(),
        name: name.to_owned(),
        known: names.into_iter().flatten().collect(),
    })
}

fn form_of_backend(service: &str, backend: &str) -> EditError {
    EditError::Form(format!("service {} backend {}", quoted(service), quoted(backend)))
}

/// Refuses an address that another backend of the service has.
fn check_free(service: &str, list: &List<'_>, address: IpAddr, own: Option<&str>) -> Result<(), EditError> {
    let nodes = list.nodes();
    let others = nodes.iter().filter(|node| own.is_none() || node.backend_name().as_deref() != own);
    match others.filter(|node| node.address() == Some(address)).find_map(Node::backend_name) {
        Some(name) => Err(EditError::AddressTaken { service: service.to_owned(), name, address }),
        None => Ok(()),
    }
}

fn check_reachable(address: IpAddr) -> Result<(), EditError> {
    check_destination(address).map_err(|error| EditError::Value { key: "address", error })
}

fn check_port(port: Option<u16>) -> Result<(), EditError> {
    match port {
        Some(0) => Err(EditError::Value { key: "port", error: ValueError::new(0, "1 to 65535") }),
        _ => Ok(()),
    }
}
