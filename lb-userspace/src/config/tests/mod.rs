//! Tests of the whole module: a row per message, texts before and after an edit, properties, documentation.

mod documentation;
mod editing;
mod messages;
mod properties;
mod resolved;

/// A service that is complete; four lines.
const WEB: &str = "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.10\"]\nports = [80]\n";
/// An agent that is complete; four lines.
const AGENT: &str =
    "[agent]\ninterface = \"eth0\"\nvips = [\"192.0.2.10\"]\ntunnel_sources = [\"198.51.100.0/28\"]\n";
