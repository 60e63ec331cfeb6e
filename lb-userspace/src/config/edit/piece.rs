//! Edits of one service of a large file: what stands there of it is cut out, changed and read by itself. Reading ten
//! thousand services to change one takes longer than everything else about the change.

use std::{collections::HashSet, net::IpAddr, ops::Range, sync::Arc};

use super::{Document, text::Text};
use crate::config::{Affinity, Config, Forward, Service, store};

const HEADER: &str = "[[service]]";
/// What headers of tables below a service begin with.
const BELOW: [&str; 2] = ["[service.", "[[service."];

/// Makes an edit of the service at `index` in `text`, a valid file of these services: the new text, and the service as it
/// is then. `None` when it cannot be done this way, be it that the edit is refused: the way over the whole file has
/// the words for that.
pub fn in_piece(
    name: &str,
    text: &str,
    services: &[Arc<Service>],
    index: usize,
    edit: impl FnOnce(&mut Document) -> Option<()>,
) -> Option<(String, Service)> {
    let old = services.get(index)?;
    let range = piece(text, index, services.len())?;
    if read(name, &text[range.clone()])? != **old {
        return None;
    }
    // With the line behind it, so that the edit sees where the piece ends.
    let whole = Text::new(text);
    let end = if range.end < text.len() { whole.next_line(range.end) } else { range.end };
    let (piece, next) = (&text[range.start..end], &text[range.end..end]);
    if Text::new(piece).newline != whole.newline {
        return None;
    }
    let mut document = Document::parse(name, piece).ok()?;
    edit(&mut document)?;
    let changed = document.as_str().strip_suffix(next)?;
    let service = read(name, changed)?;
    if service.name != old.name || !stands_alone(old, &service, services) {
        return None;
    }
    let text = [&text[..range.start], changed, &text[range.end..]].concat();
    store::check_size(name, text.len() as u64).ok()?;
    Some((text, service))
}

/// The only service of a text.
fn read(name: &str, text: &str) -> Option<Service> {
    let mut config = Config::parse(name, text).ok()?;
    let service = config.services.pop().filter(|_| config.services.is_empty())?;
    Some(Arc::unwrap_or_clone(service))
}

/// Whether no check across services can refuse the new one.
fn stands_alone(old: &Service, new: &Service, services: &[Arc<Service>]) -> bool {
    let same_keys = (&old.addresses, &old.ports, old.protocol) == (&new.addresses, &new.ports, new.protocol);
    if !same_keys || old.forward != new.forward || new.forward == Forward::Nat {
        return false;
    }
    // Server IDs are checked against [[quic]], which stands elsewhere.
    if old.affinity == Affinity::Quic || new.affinity == Affinity::Quic {
        return false;
    }
    let destinations: HashSet<IpAddr> = new.backends.iter().map(|b| b.address).collect();
    old.backends.iter().map(|b| b.address).eq(new.backends.iter().map(|b| b.address))
        || services.iter().flat_map(|s| &s.addresses).all(|vip| !destinations.contains(vip))
}

/// Where the `index`th of `count` services stands: from its header to the next that is not below it.
///
/// The text is valid. Where it has no string of several lines, a line that begins with `[[service]]` is a header.
fn piece(text: &str, index: usize, count: usize) -> Option<Range<usize>> {
    if text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    let lines = Text::new(text);
    let (mut found, mut headers) = (None, 0);
    for (at, _) in text.match_indices(HEADER) {
        if !lines.before(at).trim().is_empty() {
            return None;
        }
        if headers == index {
            found = Some(lines.line_start(at));
        }
        headers += 1;
    }
    let start = found.filter(|_| headers == count)?;
    let mut line = lines.next_line(start);
    while line < text.len() {
        let content = lines.line(line);
        if content.starts_with('[') && !BELOW.iter().any(|below| content.starts_with(below)) {
            break;
        }
        line = lines.next_line(line);
    }
    Some(start..line)
}

#[cfg(test)]
mod tests {
    use super::in_piece;
    use crate::config::{
        AdminState, Config, Limit, Rate,
        edit::{BackendPatch, BackendSpec, Document},
    };

    const TEXT: &str = r#"# head
[[service]] # first
name = "a"
addresses = ["192.0.2.1"]
ports = [
 1,
]

# of b1
[[service.backend]]
name = "b1"
address = "198.51.100.1"
# end

[daemon]
announce = "none"

# of b
  [[service]]
  name = "b"
  addresses = ["192.0.2.2"]
  ports = [1]

  [service.limit]
  anonymous = { rate = 5, burst = 9 }

  [[service.backend]]
  name = "b1"
  address = "198.51.100.1"
  # of c
[[service]]
name = "c"
addresses = ["192.0.2.3"]
ports = [1]
backend = [{ address = "198.51.100.4", name = "b1" }]"#;

    type Make = fn(&mut Document, &str) -> Option<()>;
    const EDITS: [Make; 6] = [
        |document, service| {
            let patch =
                BackendPatch { weight: Some(7), state: Some(AdminState::Drain), ..BackendPatch::default() };
            document.set_backend(service, "b1", patch).ok()
        },
        |document, service| document.remove_backend(service, "b1").ok(),
        |document, service| {
            let address = "198.51.100.9".parse().expect("an address");
            let spec = BackendSpec { name: None, address, port: None, weight: Some(3), state: None };
            document.add_backend(service, &spec).ok()
        },
        |document, service| {
            document.set_limit(service, Some(Limit { anonymous: Rate { rate: 100, burst: 200 } })).ok()
        },
        |document, service| document.set_limit(service, None).ok(),
        // A VIP: refused by the file as a whole.
        |document, service| {
            let address = Some("192.0.2.3".parse().expect("an address"));
            document.set_backend(service, "b1", BackendPatch { address, ..BackendPatch::default() }).ok()
        },
    ];

    #[test]
    fn a_piece_is_edited_as_the_whole_file_would_be() {
        let mut done = 0;
        for text in [TEXT.to_owned(), TEXT.replace('\n', "\r\n"), format!("{TEXT}\n")] {
            let config = Config::parse("lb.toml", &text).unwrap();
            for (index, service) in config.services.iter().enumerate() {
                for (number, edit) in EDITS.iter().enumerate() {
                    let mut document = Document::parse("lb.toml", &text).unwrap();
                    let whole = edit(&mut document, &service.name)
                        .and_then(|()| Config::parse("lb.toml", document.as_str()).ok());
                    let part =
                        in_piece("lb.toml", &text, &config.services, index, |d| edit(d, &service.name));
                    let what = format!("edit {number} of {}", service.name);
                    match (whole, part) {
                        (Some(whole), Some((text, service))) => {
                            let want = (document.as_str(), &*whole.services[index]);
                            assert_eq!((text.as_str(), &service), want, "{what}");
                            done += 1;
                        }
                        (None, None) => {}
                        (whole, part) => panic!("{what}: {whole:?}, {part:?}"),
                    }
                }
            }
        }
        assert_eq!(done, 3 * 3 * 5, "five edits of three services in three texts; the sixth is refused");
    }

    #[test]
    fn what_is_not_in_one_piece_is_left_to_the_whole_file() {
        let edit = |document: &mut Document| EDITS[0](document, "a");
        for text in [
            // A table of the first service behind another one.
            TEXT.replace("# of b\n", "[[service.backend]]\naddress = \"198.51.100.7\"\n"),
            // A header that is none.
            TEXT.replace("# head", "# [[service]]"),
            TEXT.replace("# head", "# '''"),
        ] {
            let config = Config::parse("lb.toml", &text).unwrap();
            assert_eq!(in_piece("lb.toml", &text, &config.services, 0, edit), None, "{text}");
        }
    }
}
