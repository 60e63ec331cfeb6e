//! From edits as the API has them to edits of the text.

use crate::{
    api::{ApiError, Edit, NewBackend, change::default_weight},
    config::{
        AdminState, Limit,
        edit::{self, Document, EditError},
    },
};

/// Makes one edit.
pub(super) fn write(what: &Edit, document: &mut Document) -> Result<(), ApiError> {
    match what {
        Edit::AddService { service } => document.add_service(&edit::ServiceSpec {
            name: service.name.clone(),
            addresses: service.addresses.clone(),
            ports: service.ports.clone(),
            protocol: service.protocol,
            affinity: service.affinity,
            forward: service.forward,
            table_slots: service.table_slots,
            backends: service.backends.iter().map(spec).collect(),
        }),
        Edit::RemoveService { service } => document.remove_service(service),
        Edit::AddBackend { service, backend } => document.add_backend(service, &spec(backend)),
        Edit::RemoveBackend { service, backend } => {
            return everywhere(service.as_deref(), backend, document, |document, service| {
                document.remove_backend(service, backend)
            });
        }
        Edit::SetBackend { service, backend, patch } => {
            if patch.port == Some(None) {
                return Err(ApiError::invalid("a port cannot be taken away by a patch")
                    .field("port")
                    .found("null")
                    .fix("remove the line from lb.toml and run `lb apply`"));
            }
            let patch = edit::BackendPatch {
                weight: patch.weight,
                state: patch.state,
                address: patch.address,
                port: patch.port.flatten(),
            };
            return everywhere(service.as_deref(), backend, document, |document, service| {
                document.set_backend(service, backend, patch)
            });
        }
        Edit::SetLimit { service, limit } => document.set_limit(service, Some(Limit { anonymous: *limit })),
        Edit::ClearLimit { service } => document.set_limit(service, None),
    }
    .map_err(|error| refused(&error))
}

/// In one service, or in every one that has a backend of this name.
fn everywhere(
    service: Option<&str>,
    backend: &str,
    document: &mut Document,
    mut edit: impl FnMut(&mut Document, &str) -> Result<(), EditError>,
) -> Result<(), ApiError> {
    if let Some(service) = service {
        return edit(document, service).map_err(|error| refused(&error));
    }
    let services = document.services_with(backend);
    if services.is_empty() {
        return Err(ApiError::not_found(format!("no service has a backend {backend:?}"))
            .field("backend")
            .found(backend)
            .fix("`lb backend list` shows them all"));
    }
    for service in services {
        edit(document, &service).map_err(|error| {
            let mut error = refused(&error);
            error.detail = format!("{service}/{backend}: {}", error.detail);
            error
        })?;
    }
    Ok(())
}

fn spec(backend: &NewBackend) -> edit::BackendSpec {
    edit::BackendSpec {
        name: backend.name.clone(),
        address: backend.address,
        port: backend.port,
        weight: (backend.weight != default_weight()).then_some(backend.weight),
        state: (backend.state != AdminState::Up).then_some(backend.state),
    }
}

fn refused(error: &EditError) -> ApiError {
    let text = error.to_string();
    match error {
        EditError::NoService { name, .. } | EditError::NoBackend { name, .. } => {
            ApiError::not_found(text).found(name)
        }
        EditError::BackendExists { name, .. } | EditError::ServiceExists { name } => {
            ApiError::conflict(text).field("name").found(name)
        }
        EditError::AddressTaken { address, .. } => {
            ApiError::conflict(text).field("address").found(address.to_string())
        }
        EditError::Value { key, .. } => ApiError::invalid(text).field(*key),
        EditError::NothingToChange | EditError::Form(_) => ApiError::invalid(text),
    }
}

#[cfg(test)]
mod tests {
    use super::write;
    use crate::{
        api::{BackendPatch, Edit},
        config::{AdminState, edit::Document},
    };

    const TEXT: &str = "[[service]]\nname = \"a\"\naddresses = [\"192.0.2.1\"]\nports = [1]\n[[service.backend]]\nname = \
                        \"b1\"\naddress = \"198.51.100.1\"\n[[service]]\nname = \"b\"\naddresses = \
                        [\"192.0.2.2\"]\nports = [1]\n[[service.backend]]\nname = \"b1\"\naddress = \
                        \"198.51.100.1\"\n[[service]]\nname = \"c\"\naddresses = [\"192.0.2.3\"]\nports = [1]\n";

    #[test]
    fn a_backend_is_changed_in_every_service_that_has_it() {
        let mut document = Document::parse("lb.toml", TEXT).unwrap();
        let patch = BackendPatch::state(AdminState::Drain);
        write(&Edit::SetBackend { service: None, backend: "b1".into(), patch }, &mut document).unwrap();
        assert_eq!(document.as_str().matches("drain").count(), 2);
        let patch = BackendPatch { address: Some("0.0.0.0".parse().unwrap()), ..BackendPatch::default() };
        let edit = Edit::SetBackend { service: None, backend: "b1".into(), patch };
        let error = write(&edit, &mut document).unwrap_err();
        assert!(error.detail.starts_with("a/b1: "), "{error}");
        let error =
            write(&Edit::RemoveBackend { service: None, backend: "b9".into() }, &mut document).unwrap_err();
        assert_eq!(error.status, 404);
        write(&Edit::RemoveBackend { service: None, backend: "b1".into() }, &mut document).unwrap();
        assert!(!document.as_str().contains("198.51.100.1"));
    }
}
