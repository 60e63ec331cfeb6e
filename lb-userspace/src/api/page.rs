//! The status page: one HTML document with nothing to load, nothing to run and nothing that is not escaped.

use std::fmt::{Display, Write};

use axum::http::{HeaderName, header};

use super::{
    types::{BackendState, BackendStatus, InterfaceMode, ServiceStatus, Status, Timestamp},
    words,
};
use crate::config::AdminState;

/// What a browser may do with the page: show it.
pub(super) const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8885;--ok:#16703a;--mid:#8a5a00;--bad:#b3261e}
@media(prefers-color-scheme:dark){:root{--ok:#5fd08a;--mid:#f0b64a;--bad:#ff8a80}}
body{font:15px/1.45 system-ui,sans-serif;margin:1.5rem auto;max-width:76rem;padding:0 1rem}
h1{font-size:1.35rem;margin:0}h2{font-size:1.1rem;margin:1.8rem 0 .2rem}p{margin:.2rem 0}
.scroll{overflow-x:auto}table{border-collapse:collapse;margin:.5rem 0;width:100%}
th,td{padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.ok{color:var(--ok)}.mid{color:var(--mid)}.bad{color:var(--bad)}.state{font-weight:600;white-space:nowrap}
.quiet{opacity:.75}code{font-size:.92em}ul{margin:.3rem 0;padding-left:1.2rem}";

/// Text made safe for element content and quoted attributes.
struct Esc<T>(T);

impl<T: Display> Display for Esc<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// Renders the page; ages count to now.
pub(super) fn render(status: &Status) -> String {
    render_at(status, Timestamp::now())
}

/// Writing to a `String` cannot fail, hence the ignored results here and below.
fn render_at(s: &Status, now: Timestamp) -> String {
    let mut out = String::with_capacity(8192);
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><meta http-equiv=\"refresh\" content=\"5\"><link \
         rel=\"icon\" href=\"data:,\"><title>lb {name}</title><style>{STYLE}</style></head><body><header><h1>lb \
         {name}</h1><p class=\"quiet\">version {version}, ABI {abi}, generation {generation}, up {up}, as of {now}; \
         refreshes every 5 seconds</p></header><main>",
        name = Esc(&s.name),
        version = Esc(&s.version),
        abi = s.abi,
        generation = words::count(s.generation),
        up = words::age(s.started, now),
    );
    warnings(&mut out, s);
    interfaces(&mut out, s);
    for service in &s.services {
        service_section(&mut out, service, now);
    }
    if s.services.is_empty() {
        out.push_str("<p>No service is configured.</p>");
    }
    reasons(&mut out, s);
    out.push_str("</main></body></html>\n");
    out
}

fn warnings(out: &mut String, s: &Status) {
    if s.warnings.is_empty() {
        return;
    }
    out.push_str("<section><h2 class=\"bad\">Warnings</h2><ul>");
    for warning in &s.warnings {
        let _ = write!(out, "<li>{}</li>", Esc(warning));
    }
    out.push_str("</ul></section>");
}

fn interfaces(out: &mut String, s: &Status) {
    let t = s.flow_table;
    out.push_str("<section><h2>Datapath</h2>");
    for i in &s.interfaces {
        let (class, mode) = match i.mode {
            InterfaceMode::Native => ("ok", "native"),
            InterfaceMode::Generic => ("mid", "generic"),
        };
        let _ = write!(
            out,
            "<p><code>{}</code>: <span class=\"{class}\">{mode}</span> <span class=\"quiet\">{}</span></p>",
            Esc(&i.name),
            Esc(&i.mode_reason),
        );
    }
    let _ = write!(
        out,
        "<p>Flow table: {} of {} in use, {} hits, {} refused, {} evicted. Memory: {}.</p></section>",
        words::count(t.used),
        words::count(t.capacity),
        words::count(t.hits),
        words::count(t.refused),
        words::count(t.evicted),
        words::bytes(s.memory_bytes),
    );
}

fn service_section(out: &mut String, s: &ServiceStatus, now: Timestamp) {
    let addresses: Vec<String> = s.addresses.iter().map(ToString::to_string).collect();
    let limit = s.limit.map_or("no limit".into(), |l| {
        format!("limit {}/s, burst {} per source", words::count(l.rate.into()), words::count(l.burst.into()))
    });
    let _ = write!(
        out,
        "<section><h2>{name}</h2><p>{addresses}, port {ports}. {slots}, {unsettled} unsettled, {exceptions} with \
         exceptions; {limit}; {packets} packets, {bytes}.</p><div class=\"scroll\"><table><thead><tr><th \
         scope=\"col\">Backend</th><th scope=\"col\">Address</th><th scope=\"col\">State</th><th \
         scope=\"col\">Since</th><th scope=\"col\" class=\"n\">Weight</th><th scope=\"col\" class=\"n\">Share</th><th \
         scope=\"col\" class=\"n\">Packets</th><th scope=\"col\" class=\"n\">Bytes</th><th scope=\"col\">Next \
         hop</th><th scope=\"col\">Why</th></tr></thead><tbody>",
        name = Esc(&s.name),
        addresses = Esc(addresses.join(", ")),
        ports = Esc(s.ports.join(", ")),
        slots = words::plural(s.slots.into(), "slot"),
        unsettled = words::count(s.unsettled.into()),
        exceptions = words::count(s.exceptions.into()),
        packets = words::count(s.packets),
        bytes = words::bytes(s.bytes),
    );
    for b in &s.backends {
        backend_row(out, b, now);
    }
    if s.backends.is_empty() {
        out.push_str("<tr><td colspan=\"10\">No backend: every packet of this service is dropped.</td></tr>");
    }
    out.push_str("</tbody></table></div></section>");
}

fn backend_row(out: &mut String, b: &BackendStatus, now: Timestamp) {
    let class = match b.state {
        BackendState::Ready => "ok",
        BackendState::Failed => "bad",
        BackendState::Unknown | BackendState::NotReady | BackendState::Draining | BackendState::Down => "mid",
    };
    let weight = if b.admin == AdminState::Down { "-".into() } else { words::count(b.weight.into()) };
    let _ = write!(
        out,
        "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"state {class}\">{}</td><td class=\"quiet\">{}</td><td \
         class=\"n\">{weight}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td \
         class=\"n\">{}</td><td>{}</td><td>{}</td></tr>",
        Esc(&b.name),
        Esc(b.address),
        b.state.word().replace('_', " "),
        words::age(b.since, now),
        words::percent(b.share),
        words::count(b.packets),
        words::bytes(b.bytes),
        Esc(&b.next_hop),
        Esc(&b.reason),
    );
}

fn reasons(out: &mut String, s: &Status) {
    out.push_str(
        "<section><h2>Packets by reason</h2><div class=\"scroll\"><table><thead><tr><th scope=\"col\">Reason</th><th \
         scope=\"col\" class=\"n\">Packets</th></tr></thead><tbody>",
    );
    for (reason, packets) in &s.reasons {
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"n\">{}</td></tr>",
            Esc(reason),
            words::count(*packets)
        );
    }
    out.push_str("</tbody></table></div></section>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::fake::{NOW, sample_status};

    fn page(status: &Status) -> String {
        render_at(status, Timestamp::from_unix(NOW))
    }

    #[test]
    fn backends_have_their_state_in_words() {
        let html = page(&sample_status());
        assert!(html.contains("<td class=\"state ok\">ready</td>"), "{html}");
        assert!(html.contains("<td class=\"state bad\">failed</td>"), "{html}");
        assert!(html.contains("connection refused"), "{html}");
        assert!(html.contains("<th scope=\"row\">forwarded</th><td class=\"n\">123,456</td>"), "{html}");
    }

    #[test]
    fn whatever_comes_from_outside_is_escaped() {
        let mut status = sample_status();
        let evil = "<script>alert(\"x\")</script>&'";
        status.warnings = vec![evil.into()];
        status.interfaces[0].mode_reason = evil.into();
        status.services[0].name = evil.into();
        status.services[0].backends[0].name = evil.into();
        status.services[0].backends[0].reason = evil.into();
        status.services[0].backends[0].next_hop = evil.into();
        status.reasons.insert(evil.into(), 1);
        let html = page(&status);
        assert!(!html.contains("<script"), "{html}");
        let safe = "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;&amp;&#39;";
        assert_eq!(html.matches(safe).count(), 7, "{html}");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere() {
        let html = page(&sample_status());
        assert!(!html.contains("src=") && !html.contains("http://") && !html.contains("https://"), "{html}");
        assert_eq!(html.matches("href=").count(), 1, "only the empty icon");
    }

    #[test]
    fn tags_are_balanced() {
        let html = page(&sample_status());
        for tag in ["section", "table", "thead", "tbody", "tr", "td", "div", "p", "ul", "li", "span", "main"]
        {
            let open = html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
            assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "<{tag}>");
        }
    }
}
