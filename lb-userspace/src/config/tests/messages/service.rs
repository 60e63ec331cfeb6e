//! Messages about `[[service]]` and what stands under it.

use super::{super::WEB, demand};

#[test]
fn service_keys() {
    demand(
        WEB,
        &[
            (
                "slow_start = \"2h\"",
                "lb.toml:5:14: service \"web\": slow_start: found \"2h\", expected \"0s\" to \"1h\"",
            ),
            (
                "on_failure = \"drop\"",
                "lb.toml:5:14: service \"web\": on_failure: found \"drop\", expected one of: rehash, reset",
            ),
            ("adress = 1", "lb.toml:5:1: service \"web\": unknown key \"adress\"; did you mean addresses?"),
            (
                "protocol = \"sctp\"",
                "lb.toml:5:12: service \"web\": protocol: found \"sctp\", expected one of: tcp, udp, both",
            ),
            (
                "forward = \"ip\"",
                "lb.toml:5:11: service \"web\": forward: found \"ip\"; did you mean \"ipip\"? (known: l2, ipip, gue, nat)",
            ),
            (
                "tracking = \"some\"",
                "lb.toml:5:12: service \"web\": tracking: found \"some\", expected one of: changes, always, never",
            ),
            (
                "settle = \"15 minutes\"",
                "lb.toml:5:10: service \"web\": settle: found \"15 minutes\", expected a duration like \"500ms\", \
                 \"2s\", \"15m\" or \"1h30m\"",
            ),
            (
                "settle = 900",
                "lb.toml:5:10: service \"web\": settle: found the number 900, expected a string in quotes",
            ),
            (
                "settle = \"1d\"",
                "lb.toml:5:10: service \"web\": settle: found \"1d\", expected \"1s\" to \"2h\"",
            ),
            (
                "table_slots = 16384",
                "lb.toml:5:15: service \"web\": table_slots: found 16384, expected a prime; the nearest are 16381 and \
                 16411",
            ),
            (
                "table_slots = 101",
                "lb.toml:5:15: service \"web\": table_slots: found 101, expected a prime from 251 to 1048573",
            ),
            (
                "table_slots = 2000003",
                "lb.toml:5:15: service \"web\": table_slots: found 2000003, expected a prime from 251 to 1048573",
            ),
            (
                "table_slots = 251.0",
                "lb.toml:5:15: service \"web\": table_slots: found the number 251.0, expected a whole number",
            ),
            (
                "health = \"http\"",
                "lb.toml:5:10: service \"web\": health: found the string \"http\", expected a table",
            ),
            ("limit = 5", "lb.toml:5:9: service \"web\": limit: found the number 5, expected a table"),
            (
                "backend = { address = \"198.51.100.1\" }",
                "lb.toml:5:11: service \"web\": backend: found a table, expected a list of tables; write \
                 [[service.backend]] with two brackets on each side",
            ),
            (
                "backend = [\"198.51.100.1\"]",
                "lb.toml:5:12: service \"web\": backend: found the string \"198.51.100.1\", expected a table",
            ),
        ],
    );
}

#[test]
fn names_addresses_and_ports() {
    demand(
        "[[service]]\n",
        &[
            (
                "",
                "lb.toml:1:1: service number 1: name is missing; add for example `name = \"web\"`\n\
                 lb.toml:1:1: service number 1: addresses is missing; add for example `addresses = [\"192.0.2.10\"]`\n\
                 lb.toml:1:1: service number 1: ports is missing; add for example `ports = [80, 443]` or \
                 `ports = \"any\"`",
            ),
            (
                "name = \"a b\"\naddresses = []\nports = []",
                "lb.toml:2:8: service \"a b\": name: found \"a b\", expected 1 to 63 of the characters A-Z a-z 0-9 . _ -\n\
                 lb.toml:3:13: service \"a b\": addresses: found an empty list, expected at least one, for example \
                 `addresses = [\"192.0.2.10\"]`\n\
                 lb.toml:4:9: service \"a b\": ports: found an empty list, expected at least one port, or \"any\"",
            ),
            (
                "name = 5\naddresses = [\"192.0.2.1\", \"192.0.2.1\"]\nports = 0",
                "lb.toml:2:8: service number 1: name: found the number 5, expected a string in quotes\n\
                 lb.toml:3:27: service number 1: addresses: found \"192.0.2.1\" twice; remove one\n\
                 lb.toml:4:9: service number 1: ports: found \"0\", expected a port from 1 to 65535 or a range like \
                 \"8000-8100\", lower end first",
            ),
            (
                "name = \"web\"\naddresses = [\"192.0.2.300\", \"host\", \"192.0.2.1/32\"]\nports = 80",
                "lb.toml:3:14: service \"web\": addresses: found \"192.0.2.300\", expected an IPv4 or IPv6 address (no \
                 name, no port, no prefix length)\n\
                 lb.toml:3:29: service \"web\": addresses: found \"host\", expected an IPv4 or IPv6 address (no name, \
                 no port, no prefix length)\n\
                 lb.toml:3:37: service \"web\": addresses: found \"192.0.2.1/32\", expected an IPv4 or IPv6 address (no \
                 name, no port, no prefix length)",
            ),
            (
                "name = \"web\"\nports = \"any\"\naddresses = [\n\"224.0.0.1\",\n\"0.0.0.0\",\n\"127.0.0.1\",\n\
                 \"255.255.255.255\",\n\"::ffff:192.0.2.1\",\n\"fe80::1\",\n\"ff02::1\",\n]",
                "lb.toml:5:1: service \"web\": addresses: found 224.0.0.1, a multicast address, expected an address \
                 that routers deliver to one host\n\
                 lb.toml:6:1: service \"web\": addresses: found 0.0.0.0, the unspecified address, expected an address \
                 that routers deliver to one host\n\
                 lb.toml:7:1: service \"web\": addresses: found 127.0.0.1, a loopback address, expected an address that \
                 routers deliver to one host\n\
                 lb.toml:8:1: service \"web\": addresses: found 255.255.255.255, the broadcast address, expected an \
                 address that routers deliver to one host\n\
                 lb.toml:9:1: service \"web\": addresses: found ::ffff:192.0.2.1, an IPv4 address written as IPv6, \
                 expected an address that routers deliver to one host\n\
                 lb.toml:10:1: service \"web\": addresses: found fe80::1, a link-local address, expected an address \
                 that routers deliver to one host\n\
                 lb.toml:11:1: service \"web\": addresses: found ff02::1, a multicast address, expected an address that \
                 routers deliver to one host",
            ),
            (
                "name = \"web\"\naddresses = [\"192.0.2.10\"]\nports = [80, \"90-\", \"9-8\", \"any\", 65536, true]",
                "lb.toml:4:14: service \"web\": ports: found \"90-\", expected a port from 1 to 65535 or a range like \
                 \"8000-8100\", lower end first\n\
                 lb.toml:4:21: service \"web\": ports: found \"9-8\", expected a port from 1 to 65535 or a range like \
                 \"8000-8100\", lower end first\n\
                 lb.toml:4:28: service \"web\": ports: found \"any\" in a list, expected ports = \"any\" alone, or ports \
                 and ranges\n\
                 lb.toml:4:35: service \"web\": ports: found \"65536\", expected a port from 1 to 65535 or a range like \
                 \"8000-8100\", lower end first\n\
                 lb.toml:4:42: service \"web\": ports: found true, expected a port (80), a range (\"8000-8100\"), a \
                 list of these, or \"any\"",
            ),
            (
                "name = \"web\"\naddresses = [\"192.0.2.10\"]\nports = [80, \"79-81\"]",
                "lb.toml:4:9: service \"web\": ports: found port 80 twice (79-81 and 80), expected each port once",
            ),
            (
                "name = \"web\"\naddresses = [\"192.0.2.10\"]\nports = \"1-4097\"",
                "lb.toml:4:9: service \"web\": ports: found 4097 ports, expected at most 4096; use \"any\" for more",
            ),
        ],
    );
}

#[test]
fn health() {
    demand(
        &format!("{WEB}[service.health]\n"),
        &[
            (
                "type = \"icmp\"",
                "lb.toml:6:8: service \"web\" health: type: found \"icmp\", expected one of: none, tcp, http, \
                 https, grpc, dns, udp, exec",
            ),
            (
                "type = \"dns\"\nquery = \"a..b\"",
                "lb.toml:7:9: service \"web\" health: query: found \"a..b\", expected a domain name like \"www.example\"",
            ),
            (
                "type = \"udp\"\nsend = \"\"\nquery = \"a\"",
                "lb.toml:7:8: service \"web\" health: send: found 0 bytes, expected 1 to 1024 bytes\n\
                 lb.toml:8:9: service \"web\" health: query: belongs to type = \"dns\"; set that type or remove the key",
            ),
            (
                "type = \"exec\"\ncommand = [\"check\"]",
                "lb.toml:7:11: service \"web\" health: command: expected an absolute path and its arguments, 1 to 64 strings",
            ),
            (
                "type = \"grpc\"\nservice = \"a b\"",
                "lb.toml:7:11: service \"web\" health: service: found \"a b\", expected the name of a gRPC service, at most \
                 120 visible ASCII characters",
            ),
            (
                "via = \"vip\"",
                "lb.toml:6:7: service \"web\" health: via: \"vip\" is not available in this version (known: address)",
            ),
            (
                "path = \"/\"\nexpect = 200\nhost = \"a\"\nbody = \"ok\"",
                "lb.toml:6:8: service \"web\" health: path: belongs to type = \"http\" or \"https\"; set that type or \
                 remove the key\n\
                 lb.toml:7:10: service \"web\" health: expect: belongs to type = \"http\" or \"https\"; set that type or \
                 remove the key\n\
                 lb.toml:8:8: service \"web\" health: host: belongs to type = \"http\" or \"https\"; set that type or \
                 remove the key\n\
                 lb.toml:9:8: service \"web\" health: body: belongs to type = \"http\" or \"https\"; set that type or \
                 remove the key",
            ),
            (
                "type = \"http\"\nsni = \"a\"\nca = \"/ca.pem\"\ninsecure = false",
                "lb.toml:7:7: service \"web\" health: sni: belongs to type = \"https\"; set that type or remove the key\n\
                 lb.toml:8:6: service \"web\" health: ca: belongs to type = \"https\"; set that type or remove the key\n\
                 lb.toml:9:12: service \"web\" health: insecure: belongs to type = \"https\"; set that type or remove the \
                 key",
            ),
            (
                "type = \"https\"\nsni = \"192.0.2.1\"",
                "lb.toml:7:7: service \"web\" health: sni: found \"192.0.2.1\", expected a domain name like \
                 \"www.example\", without a dot at its end",
            ),
            (
                "type = \"https\"\nca = \"ca.pem\"",
                "lb.toml:7:6: service \"web\" health: ca: found \"ca.pem\", expected the absolute path of a PEM file like \
                 \"/etc/lb/ca.pem\"",
            ),
            (
                "type = \"https\"\nca = \"/ca.pem\"\ninsecure = true",
                "lb.toml:8:12: service \"web\" health: insecure: found true beside ca, expected one of both: whoever \
                 believes anyone needs no CA; remove insecure",
            ),
            (
                "type = \"https\"\nbody = \"\"",
                "lb.toml:7:8: service \"web\" health: body: found 0 bytes, expected 1 to 1024 bytes",
            ),
            (
                "type = \"http\"\npath = \"ready\"",
                "lb.toml:7:8: service \"web\" health: path: found \"ready\", expected an absolute path like \
                 \"/ready?full=1\": at most 1024 visible ASCII characters, encode others as %XX",
            ),
            (
                "type = \"http\"\npath = \"/a\\r\\nHost: b\"",
                "lb.toml:7:8: service \"web\" health: path: found \"/a\\r\\nHost: b\", expected an absolute path like \
                 \"/ready?full=1\": at most 1024 visible ASCII characters, encode others as %XX",
            ),
            (
                "type = \"http\"\nhost = \"a b\"",
                "lb.toml:7:8: service \"web\" health: host: found \"a b\", expected a host name or address, with a port \
                 where needed, like \"example.net:8080\"",
            ),
            (
                "type = \"http\"\nexpect = \"2xx\"",
                "lb.toml:7:10: service \"web\" health: expect: found \"2xx\", expected status codes from 100 to 599 \
                 like \"200-299\" or \"200,204,300-399\"",
            ),
            (
                "type = \"http\"\nexpect = 42",
                "lb.toml:7:10: service \"web\" health: expect: found \"42\", expected status codes from 100 to 599 like \
                 \"200-299\" or \"200,204,300-399\"",
            ),
            (
                "type = \"http\"\nexpect = [200]",
                "lb.toml:7:10: service \"web\" health: expect: found a list, expected status codes like \"200-299\" or \
                 204",
            ),
            ("port = 70000", "lb.toml:6:8: service \"web\" health: port: found 70000, expected 1 to 65535"),
            (
                "interval = \"50ms\"",
                "lb.toml:6:12: service \"web\" health: interval: found \"50ms\", expected \"100ms\" to \"1h\"",
            ),
            (
                "timeout = \"3s\"",
                "lb.toml:6:11: service \"web\" health: timeout: found \"3s\", expected at most the interval, \"2s\"; \
                 checks must not overlap",
            ),
            (
                "timeout = \"0s\"",
                "lb.toml:6:11: service \"web\" health: timeout: found \"0s\", expected \"1ms\" to \"1h\"",
            ),
            ("rise = 0", "lb.toml:6:8: service \"web\" health: rise: found 0, expected 1 to 100"),
            ("fall = 101", "lb.toml:6:8: service \"web\" health: fall: found 101, expected 1 to 100"),
            ("paht = \"/\"", "lb.toml:6:1: service \"web\" health: unknown key \"paht\"; did you mean path?"),
        ],
    );
    demand(
        "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.10\"]\nports = \"any\"\n",
        &[(
            "health.type = \"tcp\"\nbackend = [{ address = \"198.51.100.1\" }]",
            "lb.toml:5:1: service \"web\" health: port: found none, expected one here or in every backend, since ports \
             = \"any\" names none to ask",
        )],
    );
}

#[test]
fn limit() {
    demand(
        WEB,
        &[
            (
                "[service.limit]",
                "lb.toml:5:1: service \"web\" limit: anonymous is missing; add for example `anonymous = { rate = 1000, \
                 burst = 2000 }`",
            ),
            (
                "limit.anonymous = 5",
                "lb.toml:5:19: service \"web\" limit: anonymous: found the number 5, expected a table",
            ),
            (
                "limit.anonymous = { burst = 5 }",
                "lb.toml:5:19: service \"web\" limit anonymous: rate is missing; add for example `rate = 1000`",
            ),
            (
                "limit.anonymous = { rate = 0, burst = 10000001 }",
                "lb.toml:5:28: service \"web\" limit anonymous: rate: found 0, expected 1 to 1000000\n\
                 lb.toml:5:39: service \"web\" limit anonymous: burst: found 10000001, expected 1 to 10000000",
            ),
            (
                "limit.anonymous = { rate = 1, per = \"s\" }",
                "lb.toml:5:31: service \"web\" limit anonymous: unknown key \"per\" (known: rate, burst)",
            ),
            (
                "limit.login = { rate = 1 }",
                "lb.toml:5:1: service \"web\" limit: anonymous is missing; add for example `anonymous = { rate = 1000, \
                 burst = 2000 }`\n\
                 lb.toml:5:7: service \"web\" limit: unknown key \"login\" (known: anonymous)",
            ),
        ],
    );
}

#[test]
fn backends() {
    demand(
        WEB,
        &[
            (
                "[[service.backend]]\nname = \"b1\"",
                "lb.toml:5:1: service \"web\" backend \"b1\": address is missing; add for example `address = \
                 \"198.51.100.11\"`",
            ),
            (
                "[[service.backend]]\naddress = \"b1\"",
                "lb.toml:6:11: service \"web\" backend number 1: address: found \"b1\", expected an IPv4 or IPv6 \
                 address (no name, no port, no prefix length)",
            ),
            (
                "[[service.backend]]\naddress = \"127.0.0.1\"",
                "lb.toml:6:11: service \"web\" backend number 1: address: found 127.0.0.1, a loopback address, expected \
                 an address that routers deliver to one host",
            ),
            (
                "[[service.backend]]\naddress = \"192.0.2.10\"",
                "lb.toml:6:11: service \"web\" backend number 1: address: found 192.0.2.10, a VIP of this file, \
                 expected the backend's own address",
            ),
            (
                "[[service.backend]]\nname = \"b1\"\naddress = \"198.51.100.1\"\nweight = 70000\nport = 0\nstate = \
                 \"off\"",
                "lb.toml:8:10: service \"web\" backend \"b1\": weight: found 70000, expected 0 to 65535\n\
                 lb.toml:9:8: service \"web\" backend \"b1\": port: found 0, expected 1 to 65535\n\
                 lb.toml:10:9: service \"web\" backend \"b1\": state: found \"off\", expected one of: up, drain, down",
            ),
            (
                "[[service.backend]]\nname = \"b/1\"\naddress = \"198.51.100.1\"\nwieght = 1",
                "lb.toml:6:8: service \"web\" backend \"b/1\": name: found \"b/1\", expected 1 to 63 of the characters \
                 A-Z a-z 0-9 . _ : -\n\
                 lb.toml:8:1: service \"web\" backend \"b/1\": unknown key \"wieght\"; did you mean weight?",
            ),
            (
                "backend = [\n{ name = \"b\", address = \"198.51.100.1\" },\n{ name = \"b\", address = \
                 \"198.51.100.1\" },\n{ name = \"198.51.100.2\", address = \"198.51.100.3\" },\n{ address = \
                 \"198.51.100.2\" }]",
                "lb.toml:7:10: service \"web\" backend \"b\": name: b is taken by the backend in line 6; remove one\n\
                 lb.toml:7:25: service \"web\" backend \"b\": address: 198.51.100.1 is taken by the backend in line 6; \
                 remove one\n\
                 lb.toml:9:1: service \"web\" backend number 4: name: 198.51.100.2 is taken by the backend in line 8; \
                 remove one",
            ),
            (
                "backend = [{ address = \"198.51.100.1\", weight = 0 }, { address = \"198.51.100.2\", weight = 0 }]",
                "lb.toml:5:12: service \"web\": backend: every weight is 0; give one at least 1; to take backends out \
                 of use set state = \"drain\" or \"down\"",
            ),
            (
                "forward = \"l2\"\nbackend = [{ address = \"198.51.100.1\" }, { address = \"2001:db8::1\" }]",
                "lb.toml:6:54: service \"web\" backend number 2: address: found 2001:db8::1 (IPv6), expected IPv4 like \
                 the VIP 192.0.2.10: forward = \"l2\" sends packets as they are; use forward = \"ipip\" or one service \
                 per family",
            ),
        ],
    );
    demand(
        "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.10\", \"2001:db8::10\"]\nports = 80\nforward = \"l2\"\n",
        &[(
            "[[service.backend]]\nname = \"b1\"\naddress = \"198.51.100.1\"",
            "lb.toml:8:11: service \"web\" backend \"b1\": address: found 198.51.100.1 (IPv4), expected IPv6 like the \
             VIP 2001:db8::10: forward = \"l2\" sends packets as they are; use forward = \"ipip\" or one service per \
             family",
        )],
    );
}

#[test]
fn services_that_translate() {
    demand(
        "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.10\", \"192.0.2.11\"]\nports = [80, 81]\nforward = \"nat\"\n",
        &[(
            "[[service.backend]]\nname = \"b1\"\naddress = \"198.51.100.1\"\nport = 8080",
            "lb.toml:3:28: service \"web\" backend \"b1\": addresses: found 192.0.2.11 beside 192.0.2.10, expected one \
             IPv4 address: with forward = \"nat\" an answer of a backend must belong to one VIP; use a service and a \
             port of the backends for each VIP\n\
             lb.toml:6:1: service \"web\" backend \"b1\": port: found 8080, expected none: with forward = \"nat\" an \
             answer from one port of a backend must belong to one port of the service; give the service one port, or \
             use a service for each",
        )],
    );
    let first = "[[service]]\nname = \"a\"\naddresses = [\"192.0.2.10\"]\nports = 80\nforward = \"nat\"\n\
                 backend = [{ address = \"198.51.100.1\", port = 8080 }]\n";
    demand(
        first,
        &[
            (
                "[[service]]\nname = \"b\"\naddresses = [\"192.0.2.11\"]\nports = 8080\nforward = \"nat\"\n\
                 backend = [{ address = \"198.51.100.1\" }]",
                "lb.toml:12:24: service \"b\" backend number 1: address: answers from 198.51.100.1 tcp port 8080 \
                 belong to service \"a\" (line 1) already: with forward = \"nat\" give each service another port of \
                 the backend",
            ),
            (
                "[[service]]\nname = \"b\"\naddresses = [\"192.0.2.11\"]\nports = \"any\"\nforward = \"nat\"\n\
                 backend = [{ address = \"198.51.100.1\" }]",
                "lb.toml:6:24: service \"a\" backend number 1: address: answers from 198.51.100.1 tcp port 8080 \
                 belong to service \"b\" (line 7) already: with forward = \"nat\" give each service another port of \
                 the backend",
            ),
            (
                "[[service]]\nname = \"b\"\naddresses = [\"192.0.2.11\"]\nports = 80\nforward = \"nat\"\n\
                 backend = [{ address = \"2001:db8::1\" }]",
                "lb.toml:12:24: service \"b\" backend number 1: address: found 2001:db8::1 (IPv6), expected IPv4 like \
                 the VIP 192.0.2.11: forward = \"nat\" keeps the family of a packet; use forward = \"ipip\" or one \
                 service per family",
            ),
        ],
    );
}

#[test]
fn services_together() {
    demand(
        WEB,
        &[
            (
                "[[service]]\nname = \"web\"\naddresses = [\"192.0.2.11\"]\nports = 80",
                "lb.toml:6:8: service \"web\": name: taken by the service in line 2; rename one",
            ),
            (
                "[[service]]\nname = \"api\"\naddresses = [\"192.0.2.11\", \"192.0.2.10\"]\nports = [443, \
                 \"70-90\"]\nprotocol = \"both\"",
                "lb.toml:7:28: service \"api\": addresses: 192.0.2.10 tcp port 80 belongs to service \"web\" (line 3) \
                 already",
            ),
            (
                "[[service]]\nname = \"a\"\naddresses = [\"192.0.2.10\"]\nports = \"any\"\n[[service]]\nname = \
                 \"b\"\naddresses = [\"192.0.2.10\"]\nports = \"any\"",
                "lb.toml:11:14: service \"b\": addresses: 192.0.2.10 tcp any port belongs to service \"a\" (line 7) \
                 already",
            ),
            (
                "[[service]]\nname = \"api\"\naddresses = [\"192.0.2.11\"]\nports = 80\nbackend = [{ address = \
                 \"192.0.2.10\" }]",
                "lb.toml:9:24: service \"api\" backend number 1: address: found 192.0.2.10, a VIP of this file, \
                 expected the backend's own address",
            ),
        ],
    );
}
