//! Stands in for `lb` where the laboratory itself is tested: the kernel's multipath routing instead of XDP.
//!
//! It knows as much of the command line as the laboratory uses. `LAB_STAND_IN=flows` makes it hash ports as well, so
//! that client addresses wander between backends.

use std::{
    env, fs,
    io::{Read, Write},
    net::IpAddr,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    process::Command,
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use lb_tests::{
    cleanup::SOCKET_DIR,
    netns::write_sysctl,
    xdp_pass::{Attached, PassProgram},
};
use serde_json::json;
use toml::Table;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().collect();
    let value_of = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag);
        at.and_then(|at| arguments.get(at + 1)).with_context(|| format!("no {flag} in {arguments:?}"))
    };
    match arguments.get(1).map(String::as_str) {
        Some("run") => run(&read(value_of("--config")?)?, value_of("--name")?),
        Some("agent") => agent(&read(value_of("--config")?)?),
        Some("status") => status(Path::new(value_of("--socket")?)),
        other => bail!("the stand-in knows no {other:?}"),
    }
}

fn read(file: &str) -> Result<Table> {
    Ok(fs::read_to_string(file)?.parse()?)
}

fn run(config: &Table, name: &str) -> Result<()> {
    let service = &config["service"][0];
    let backends = service["backend"].as_array().context("backends")?;
    let mut route = vec!["route".into(), "replace".into(), text(&service["addresses"][0])?];
    for backend in backends {
        route.extend(["nexthop".into(), "via".into(), text(&backend["address"])?]);
    }
    write_sysctl("net/ipv4/ip_forward", "1")?;
    write_sysctl("net/ipv6/conf/all/forwarding", "1")?;
    let flows = env::var("LAB_STAND_IN").is_ok_and(|how| how == "flows");
    for family in ["ipv4", "ipv6"] {
        // Source and destination address, or those and the ports.
        write_sysctl(&format!("net/{family}/fib_multipath_hash_fields"), if flows { "0x37" } else { "0x3" })?;
        write_sysctl(&format!("net/{family}/fib_multipath_hash_policy"), "3")?;
    }
    ip(&route)?;

    fs::create_dir_all(SOCKET_DIR)?;
    let socket = Path::new(SOCKET_DIR).join(format!("{name}.sock"));
    let names = backends.iter().map(|backend| text(&backend["name"])).collect::<Result<Vec<_>>>()?;
    for connection in UnixListener::bind(&socket)?.incoming() {
        // The laboratory also connects only to see whether it can, and does not read.
        let _ = connection?.write_all(names.join("\n").as_bytes());
    }
    Ok(())
}

fn status(socket: &Path) -> Result<()> {
    let mut names = String::new();
    UnixStream::connect(socket)?.read_to_string(&mut names)?;
    let backends: Vec<_> = names
        .lines()
        .map(|name| json!({ "name": name, "state": "ready", "next_hop": "resolved", "reason": "" }))
        .collect();
    let service = json!({ "desired_digest": "0", "installed_digest": "0", "backends": backends });
    println!("{}", json!({ "services": [service] }));
    Ok(())
}

fn agent(config: &Table) -> Result<()> {
    let agent = &config["agent"];
    for vip in agent["vips"].as_array().context("vips")? {
        let vip = text(vip)?;
        let prefix = if vip.parse::<IpAddr>()?.is_ipv4() { 32 } else { 128 };
        ip(&["address", "replace", &format!("{vip}/{prefix}"), "dev", "lo"].map(String::from))?;
    }
    let _attached: Attached = PassProgram::load()?.attach(&text(&agent["interface"])?)?;
    loop {
        thread::park();
    }
}

fn text(value: &toml::Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"))
}

fn ip(arguments: &[String]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status()?;
    ensure!(status.success(), "ip {}: {status}", arguments.join(" "));
    Ok(())
}
