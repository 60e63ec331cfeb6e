//! What a running agent says on stdout: one line per event, for people or as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::{Map, Value};

/// Stdout, or what a test takes for it.
pub(super) struct Out<'a> {
    to: Box<dyn Write + 'a>,
    json: bool,
}

impl<'a> Out<'a> {
    pub(super) fn stdout() -> Out<'static> {
        Out { to: Box::new(io::stdout()), json: false }
    }

    #[cfg(test)]
    pub(super) fn to(to: impl Write + 'a) -> Self {
        Self { to: Box::new(to), json: false }
    }

    /// One JSON object per line from here on.
    pub(super) fn json(&mut self, json: bool) {
        self.json = json;
    }

    /// Says that `event` happened: `text` for people, `event` beside the fields of `details` for programs.
    pub(super) fn say(&mut self, event: &str, text: &str, details: &impl Serialize) {
        let line = if self.json {
            let mut object = Map::from_iter([("event".to_owned(), Value::from(event))]);
            if let Ok(Value::Object(fields)) = serde_json::to_value(details) {
                object.extend(fields);
            }
            Value::Object(object).to_string()
        } else {
            text.to_owned()
        };
        // The agent's work does not depend on anybody reading.
        let _ = writeln!(self.to, "{line}").and_then(|()| self.to.flush());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_is_text_or_one_object() {
        let mut bytes = Vec::new();
        let mut out = Out::to(&mut bytes);
        out.say("ready", "all is well", &json!({"n": 1}));
        out.json(true);
        out.say("ready", "all is well", &json!({"n": 1}));
        drop(out);
        assert_eq!(String::from_utf8(bytes).unwrap(), "all is well\n{\"event\":\"ready\",\"n\":1}\n");
    }
}
