//! Texts before and after an edit: what changes is written out, everything else must be the same byte for byte.

use std::net::IpAddr;

use crate::config::{
    AdminState, Config, Limit, Rate,
    edit::{BackendPatch, BackendSpec, Document, EditError},
};

/// A file as people write them.
const FILE: &str = r#"# Balancer of rack 7, see the runbook.
[daemon]
interfaces = ["eth0"]   # the uplink

# ---------- public ----------

[[service]]
name = "web"            # do not rename: dashboards
addresses = ["192.0.2.10"]
ports = [ 80,443 ]

  [service.health]
  type = "http"

  # first machine
  [[service.backend]]
  name = "b1"
  address = "198.51.100.11"
  weight = 50 # half a machine

  # second machine
  # (borrowed)
  [[service.backend]]
  name = "b2"
  # its management address is another one
  address = "198.51.100.12"
  # weight = 10

# ---------- internal ----------

[[service]]
addresses = ["192.0.2.11"]
name = 'api'
ports = "any"
limit.anonymous.rate = 5 # low
backend = [
  { name = "a1", address = "2001:DB8::0:1" }, # oldest
  # spare
  { address = "2001:db8::2", weight=20 }   # no comma here
]
# end
"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn spec(name: Option<&str>, address: &str) -> BackendSpec {
    BackendSpec { name: name.map(str::to_owned), address: ip(address), port: None, weight: None, state: None }
}

fn limit(rate: u32, burst: u32) -> Option<Limit> {
    Some(Limit { anonymous: Rate { rate, burst } })
}

/// Makes a change with both newlines and demands that exactly `from` became `to`.
#[track_caller]
fn changes(file: &str, make: impl Fn(&mut Document) -> Result<(), EditError>, from: &str, to: &str) {
    assert_eq!(file.matches(from).count(), 1, "the test must name one place: {from}");
    for newline in ["\n", "\r\n"] {
        let (file, from, to) =
            (file.replace('\n', newline), from.replace('\n', newline), to.replace('\n', newline));
        let mut document = Document::parse("lb.toml", &file).unwrap();
        make(&mut document).unwrap();
        assert_eq!(document.to_string(), file.replacen(&from, &to, 1));
        Config::parse("lb.toml", document.as_str()).unwrap();
    }
}

#[track_caller]
fn refused(make: impl Fn(&mut Document) -> Result<(), EditError>, message: &str) {
    let mut document = Document::parse("lb.toml", FILE).unwrap();
    assert_eq!(make(&mut document).unwrap_err().to_string(), message);
    assert_eq!(document.as_str(), FILE, "a refused change changes nothing");
}

#[test]
fn the_file_is_valid() {
    Config::parse("lb.toml", FILE).unwrap();
}

#[test]
fn a_backend_joins_the_blocks() {
    let b3 = BackendSpec {
        port: Some(8080),
        weight: Some(1),
        state: Some(AdminState::Drain),
        ..spec(Some("b3"), "198.51.100.13")
    };
    changes(
        FILE,
        |document| document.add_backend("web", &b3),
        "  # weight = 10\n",
        "  # weight = 10\n\n  [[service.backend]]\n  name = \"b3\"\n  address = \"198.51.100.13\"\n  port = 8080\n  \
         weight = 1\n  state = \"drain\"\n",
    );
}

#[test]
fn a_backend_joins_the_inline_list() {
    changes(
        FILE,
        |document| document.add_backend("api", &spec(None, "2001:db8::3")),
        "{ address = \"2001:db8::2\", weight=20 }   # no comma here\n",
        "{ address = \"2001:db8::2\", weight=20 },   # no comma here\n  { address = \"2001:db8::3\" }\n",
    );
    let one_line = "service = [{ name = \"s\", addresses = [\"192.0.2.1\"], ports = 1, backend = [ { address = \
                    \"198.51.100.1\" }, ] }]";
    changes(
        one_line,
        |document| document.add_backend("s", &spec(None, "198.51.100.2")),
        "\"198.51.100.1\" },",
        "\"198.51.100.1\" }, { address = \"198.51.100.2\" },",
    );
    let commas = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\nbackend = [\n\t{ address = \
                  \"198.51.100.1\" }, # one\n]\n";
    changes(
        commas,
        |document| document.add_backend("s", &spec(Some("x"), "198.51.100.2")),
        "# one\n",
        "# one\n\t{ name = \"x\", address = \"198.51.100.2\" },\n",
    );
    let closed = commas.replace(" }, # one\n]", " }]");
    changes(
        &closed,
        |document| document.add_backend("s", &spec(None, "198.51.100.2")),
        "\"198.51.100.1\" }]",
        "\"198.51.100.1\" },\n\t{ address = \"198.51.100.2\" }]",
    );
    let strange = commas.replace(" }, # one\n]", " } # one\n, ]");
    changes(
        &strange,
        |document| document.add_backend("s", &spec(None, "198.51.100.2")),
        "\"198.51.100.1\" }",
        "\"198.51.100.1\" },\n\t{ address = \"198.51.100.2\" }",
    );
    changes(
        &commas.replace("[\n\t{ address = \"198.51.100.1\" }, # one\n]", "[ ]"),
        |document| document.add_backend("s", &spec(None, "198.51.100.2")),
        "[ ]",
        "[{ address = \"198.51.100.2\" } ]",
    );
}

#[test]
fn the_first_backend_of_a_service() {
    let block =
        "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\n[service.health]\ntype = \"tcp\"";
    changes(
        block,
        |document| document.add_backend("s", &spec(None, "198.51.100.2")),
        "type = \"tcp\"",
        "type = \"tcp\"\n\n[[service.backend]]\naddress = \"198.51.100.2\"\n",
    );
    let inline = "service = [{ name = \"s\", addresses = [\"192.0.2.1\"], ports = 1 }] # all\n";
    changes(
        inline,
        |document| document.add_backend("s", &spec(None, "198.51.100.2")),
        "ports = 1 }",
        "ports = 1, backend = [{ address = \"198.51.100.2\" }] }",
    );
}

#[test]
fn compact_blocks_stay_compact() {
    let compact = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\n[[service.backend]]\naddress = \
                   \"198.51.100.1\"\n[[service.backend]]\naddress = \"198.51.100.2\"\n[agent]\ninterface = \
                   \"e\"\nvips = [\"192.0.2.1\"]\ntunnel_sources = \"198.51.100.9\"\n";
    changes(
        compact,
        |document| document.add_backend("s", &spec(None, "198.51.100.3")),
        "\"198.51.100.2\"\n",
        "\"198.51.100.2\"\n[[service.backend]]\naddress = \"198.51.100.3\"\n",
    );
}

#[test]
fn a_backend_leaves_with_its_comments() {
    changes(
        FILE,
        |document| document.remove_backend("web", "b1"),
        "\n  # first machine\n  [[service.backend]]\n  name = \"b1\"\n  address = \"198.51.100.11\"\n  weight = 50 # half \
         a machine\n",
        "",
    );
    changes(
        FILE,
        |document| document.remove_backend("web", "b2"),
        "\n  # second machine\n  # (borrowed)\n  [[service.backend]]\n  name = \"b2\"\n  # its management address is \
         another one\n  address = \"198.51.100.12\"\n  # weight = 10\n",
        "",
    );
    changes(
        FILE,
        |document| document.remove_backend("api", "a1"),
        "  { name = \"a1\", address = \"2001:DB8::0:1\" }, # oldest\n",
        "",
    );
    changes(
        FILE,
        |document| document.remove_backend("api", "2001:db8::2"),
        ", # oldest\n  # spare\n  { address = \"2001:db8::2\", weight=20 }   # no comma here\n",
        " # oldest\n",
    );
}

/// A comment above an empty line speaks of more than one backend; one below leads on to what follows.
#[test]
fn comments_of_others_stay() {
    let file = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\n# all machines\n\n# this \
                one\n[[service.backend]]\naddress = \"198.51.100.1\"\n# the next one\n[[service.backend]]\naddress = \
                \"198.51.100.2\"\n";
    changes(
        file,
        |document| document.remove_backend("s", "198.51.100.1"),
        "# this one\n[[service.backend]]\naddress = \"198.51.100.1\"\n",
        "",
    );
    let tricky = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\nhealth.type = \"http\"\nhealth.path \
                  = \"\"\"/\\\n# no comment:\"\"\"\n[[service.backend]]\naddress = \"198.51.100.1\"\n";
    let mut document = Document::parse("f", tricky).unwrap();
    document.remove_backend("s", "198.51.100.1").unwrap();
    assert!(tricky.starts_with(document.as_str()), "{document}");
    assert!(document.as_str().ends_with("# no comment:\"\"\"\n"), "{document}");
}

#[test]
fn the_last_backend_may_leave() {
    let rest = ["[[service]]", "name = \"s\"", "addresses = [\"192.0.2.1\"]", "ports = 1", ""].join("\n");
    let rows = [
        ("[[service.backend]]\naddress = \"198.51.100.1\"", ""),
        ("\n[[service.backend]]\naddress = \"198.51.100.1\"\n", ""),
        ("backend = [{ address = \"198.51.100.1\" }]", "backend = []"),
        ("backend = [ { address = \"198.51.100.1\" }, ]", "backend = [ ]"),
        ("backend = [\n  # only one\n  { address = \"198.51.100.1\" }, # this\n]\n", "backend = [\n]\n"),
    ];
    for (before, after) in rows {
        changes(
            &format!("{rest}{before}"),
            |document| document.remove_backend("s", "198.51.100.1"),
            before,
            after,
        );
    }
}

#[test]
fn items_of_one_line_leave_no_commas() {
    let head = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\n";
    let item = |number: u8| format!("{{ address = \"198.51.100.{number}\" }}");
    let list = format!("backend = [{}, {}, {}]", item(1), item(2), item(3));
    let after = [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])];
    for (gone, [first, second]) in after {
        let make = |document: &mut Document| document.remove_backend("s", &format!("198.51.100.{gone}"));
        changes(
            &format!("{head}{list}"),
            make,
            &list,
            &format!("backend = [{}, {}]", item(first), item(second)),
        );
    }
}

#[test]
fn fields_change_in_place() {
    let patch = BackendPatch::default();
    changes(
        FILE,
        |document| document.set_backend("web", "b1", BackendPatch { weight: Some(7), ..patch }),
        "weight = 50 # half",
        "weight = 7 # half",
    );
    changes(
        FILE,
        |document| document.set_backend("api", "2001:db8::2", BackendPatch { weight: Some(7), ..patch }),
        "weight=20 }",
        "weight=7 }",
    );
    let address = Some(ip("198.51.100.99"));
    changes(
        FILE,
        |document| document.set_backend("web", "b2", BackendPatch { address, ..patch }),
        "198.51.100.12",
        "198.51.100.99",
    );
}

#[test]
fn absent_fields_are_added_behind_the_others() {
    let patch = BackendPatch { state: Some(AdminState::Drain), port: Some(81), ..BackendPatch::default() };
    changes(
        FILE,
        |document| document.set_backend("web", "b2", patch),
        "  address = \"198.51.100.12\"\n",
        "  address = \"198.51.100.12\"\n  port = 81\n  state = \"drain\"\n",
    );
    changes(
        FILE,
        |document| document.set_backend("api", "a1", patch),
        "\"2001:DB8::0:1\" }",
        "\"2001:DB8::0:1\", port = 81, state = \"drain\" }",
    );
    let unfinished = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\n[[service.backend]]\naddress = \
                      \"198.51.100.1\" # last line";
    changes(
        unfinished,
        |document| document.set_backend("s", "198.51.100.1", patch),
        "# last line",
        "# last line\nport = 81\nstate = \"drain\"",
    );
}

#[test]
fn a_value_that_holds_by_default_is_not_written() {
    let patch = BackendPatch { weight: Some(100), state: Some(AdminState::Up), ..BackendPatch::default() };
    changes(FILE, |document| document.set_backend("web", "b2", patch), "b2", "b2");
}

#[test]
fn limits_are_set_in_every_form() {
    changes(
        FILE,
        |document| document.set_limit("api", limit(7, 9)),
        "limit.anonymous.rate = 5 # low\n",
        "limit.anonymous.rate = 7 # low\nlimit.anonymous.burst = 9\n",
    );
    changes(
        FILE,
        |document| document.set_limit("web", limit(7, 9)),
        "  # weight = 10\n",
        "  # weight = 10\n\n[service.limit]\nanonymous = { rate = 7, burst = 9 }\n",
    );
    let head = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\n";
    let rows = [
        ("limit = { anonymous = { rate = 1 } }", "limit = { anonymous = { rate = 7, burst = 9 } }"),
        ("limit = {anonymous={burst=2,rate=1}}", "limit = {anonymous={burst=9,rate=7}}"),
        (
            "[service.limit.anonymous]\nrate = 1 # a\nburst = 2 # b\n",
            "[service.limit.anonymous]\nrate = 7 # a\nburst = 9 # b\n",
        ),
        (
            "[service.limit]\nanonymous.rate = 1\n",
            "[service.limit]\nanonymous.rate = 7\nanonymous.burst = 9\n",
        ),
    ];
    for (before, after) in rows {
        changes(&format!("{head}{before}"), |document| document.set_limit("s", limit(7, 9)), before, after);
    }
    let inline = "service = [{ name = \"s\", addresses = [\"192.0.2.1\"], ports = 1 }]\n";
    changes(
        inline,
        |document| document.set_limit("s", limit(7, 9)),
        "ports = 1 }",
        "ports = 1, limit = { anonymous = { rate = 7, burst = 9 } } }",
    );
}

#[test]
fn limits_are_removed_in_every_form() {
    changes(FILE, |document| document.set_limit("api", None), "limit.anonymous.rate = 5 # low\n", "");
    changes(FILE, |document| document.set_limit("web", None), "web", "web");
    let head = "[[service]]\nname = \"s\"\naddresses = [\"192.0.2.1\"]\nports = 1\n";
    let rows = [
        "limit = { anonymous = { rate = 1 } } # why\n",
        "# against floods\nlimit.anonymous.rate = 1\nlimit.anonymous.burst = 2\n",
        "\n# against floods\n[service.limit.anonymous]\nrate = 1\n",
        "\n[service.limit]\n# slow\nanonymous.rate = 1\n# end\n",
    ];
    for before in rows {
        changes(&format!("{head}{before}"), |document| document.set_limit("s", None), before, "");
    }
    let inline = "service = [{ limit = { anonymous = { rate = 1 } }, name = \"s\", addresses = [\"192.0.2.1\"], ports = 1 \
                  }]";
    let gone = "limit = { anonymous = { rate = 1 } }, ";
    changes(inline, |document| document.set_limit("s", None), gone, "");
}

#[test]
fn requests_are_refused_with_reasons() {
    let patch = BackendPatch { weight: Some(1), ..BackendPatch::default() };
    refused(
        |document| document.add_backend("wbe", &spec(None, "198.51.100.1")),
        "no service \"wbe\"; did you mean \"web\"? (known: web, api)",
    );
    refused(
        |document| document.add_backend("web", &spec(Some("b1"), "198.51.100.1")),
        "service \"web\" has a backend \"b1\" already; change that one or choose another name",
    );
    refused(
        |document| document.add_backend("web", &spec(Some("b3"), "198.51.100.11")),
        "service \"web\" reaches 198.51.100.11 as backend \"b1\" already",
    );
    refused(
        |document| document.add_backend("api", &spec(Some("a3"), "2001:db8::1")),
        "service \"api\" reaches 2001:db8::1 as backend \"a1\" already",
    );
    refused(
        |document| document.add_backend("web", &spec(Some("b/3"), "198.51.100.3")),
        "name: found \"b/3\", expected 1 to 63 of the characters A-Z a-z 0-9 . _ : -",
    );
    refused(
        |document| document.add_backend("web", &spec(None, "127.0.0.1")),
        "address: found 127.0.0.1, a loopback address, expected an address that routers deliver to one host",
    );
    refused(
        |document| document.add_backend("web", &BackendSpec { port: Some(0), ..spec(None, "198.51.100.1") }),
        "port: found 0, expected 1 to 65535",
    );
    refused(
        |document| document.remove_backend("web", "c1"),
        "service \"web\" has no backend \"c1\"; did you mean \"b1\"? (known: b1, b2)",
    );
    refused(
        |document| document.set_backend("api", "nobody", patch),
        "service \"api\" has no backend \"nobody\" (known: a1, 2001:db8::2)",
    );
    refused(
        |document| document.set_backend("web", "b1", BackendPatch::default()),
        "nothing to change: give a weight, state, address or port",
    );
    let taken = BackendPatch { address: Some(ip("198.51.100.12")), ..BackendPatch::default() };
    refused(
        |document| document.set_backend("web", "b1", taken),
        "service \"web\" reaches 198.51.100.12 as backend \"b2\" already",
    );
    refused(|document| document.set_limit("db", limit(1, 1)), "no service \"db\" (known: web, api)");
    let mut empty = Document::parse("f", "").unwrap();
    assert_eq!(empty.set_limit("db", None).unwrap_err().to_string(), "no service \"db\"; there is none yet");
}

#[test]
fn forms_that_cannot_be_cut_are_refused() {
    let file = "service = [{ name = \"s\", addresses = [\"192.0.2.1\"], ports = 1, limit.anonymous.rate = 1, \
                limit.anonymous.burst = 1 }]";
    let mut document = Document::parse("f", file).unwrap();
    let message = "the limit of service \"s\" is written in a way that cannot be changed from here; edit the file and \
                   apply it";
    assert_eq!(document.set_limit("s", None).unwrap_err().to_string(), message);
    assert_eq!(document.as_str(), file);
    document.set_limit("s", limit(7, 9)).unwrap();
    assert!(document.as_str().contains("limit.anonymous.rate = 7, limit.anonymous.burst = 9"), "{document}");
}

#[test]
fn a_text_that_is_no_toml_is_refused_with_its_line() {
    let error = Document::parse("lb.toml", "a = 1\nb =").unwrap_err().to_string();
    assert!(error.starts_with("lb.toml:2:4: not TOML: "), "{error}");
}

#[test]
fn requests_have_a_json_form() {
    let spec: BackendSpec = serde_json::from_str(r#"{"address": "198.51.100.1", "state": "drain"}"#).unwrap();
    assert_eq!((spec.state, spec.name), (Some(AdminState::Drain), None));
    assert!(serde_json::from_str::<BackendPatch>(r#"{"wieght": 1}"#).is_err());
}
