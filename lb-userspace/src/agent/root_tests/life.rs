//! Loading, replacing, adopting, following the source, refusing.

use std::fs;

use super::{Options, Prepare, Source, TestPlaces, options, refused, served, with_agent};
use crate::{
    agent::{detach_of, run::Signal},
    api::fake::{FakeControl, TestDaemon, sample_agent},
    config::{self, XdpMode},
    net::testing::{TestNet, in_namespace},
};

fn flags(agent: config::Agent) -> Source {
    Source::Flags(agent)
}

#[test]
fn root_an_agent_leaves_its_program_and_the_next_one_replaces_it_in_the_same_link() {
    in_namespace(|| async {
        let _net = TestNet::joined().await;
        let test = TestPlaces::new();
        let start = || options(&test.places, flags(served()));
        let mut first = None;
        with_agent(&test.places, start(), async |outside| {
            let ready = outside.event("ready").await;
            assert_eq!((&ready["interface"], &ready["mode"]), (&"lb0".into(), &"native".into()), "{ready}");
            assert_eq!((&ready["replaced"], &ready["adopted"]), (&false.into(), &false.into()), "{ready}");
            let status = test.status().await;
            assert_eq!(status.mode.as_deref(), Some("native"));
            assert_eq!(status.vips, served().vips);
            assert_eq!(status.tunnel_sources, served().tunnel_sources);
            assert_eq!(status.reasons["decapsulated"], 0);
            first = Some(status);
        })
        .await
        .unwrap();
        let first = first.unwrap();
        let between = test.status().await;
        assert_eq!((between.link_id, between.program_id), (first.link_id, first.program_id), "still there");
        assert_eq!(between.vips, served().vips);
        with_agent(&test.places, start(), async |outside| {
            let ready = outside.event("ready").await;
            assert_eq!((&ready["replaced"], &ready["adopted"]), (&true.into(), &true.into()), "{ready}");
            assert_eq!(ready["mode"], "native");
            let second = test.status().await;
            assert_eq!(second.link_id, first.link_id, "one link for life");
            assert_ne!(second.program_id, first.program_id, "but another program in it");
        })
        .await
        .unwrap();
        let removed = detach_of(&test.places).unwrap();
        assert_eq!(removed, ["the program on lb0", "6 maps"]);
        assert_eq!(detach_of(&test.places).unwrap(), [""; 0]);
    });
}

#[test]
fn root_generic_mode_is_got_when_asked_for_and_detach_on_exit_leaves_nothing() {
    in_namespace(|| async {
        let _net = TestNet::joined().await;
        let test = TestPlaces::new();
        let agent = config::Agent { xdp_mode: XdpMode::Generic, ..served() };
        let start = Options { detach_on_exit: true, ..options(&test.places, flags(agent)) };
        with_agent(&test.places, start, async |outside| {
            let ready = outside.event("ready").await;
            assert_eq!((&ready["mode"], &ready["mode_reason"]), (&"generic".into(), &"as configured".into()));
            assert_eq!(test.status().await.mode.as_deref(), Some("generic"));
        })
        .await
        .unwrap();
        assert!(!test.places.pins.directory().exists());
        let error = super::status::read(&test.places).await.unwrap_err().to_string();
        assert!(error.starts_with("there is no agent of the name"), "{error}");
    });
}

#[test]
fn root_a_file_that_changed_is_followed_and_one_that_is_broken_is_not() {
    in_namespace(|| async {
        let _net = TestNet::joined().await;
        let test = TestPlaces::new();
        let file = test.file("lb.toml");
        let write = |vips: &str| {
            let text = format!(
                "[agent]\ninterface = \"lb0\"\nvips = [{vips}]\ntunnel_sources = [\"198.51.100.0/28\"]\n"
            );
            fs::write(&file, text).unwrap();
        };
        write("\"192.0.2.10\", \"192.0.2.11\"");
        let start = options(&test.places, Source::File(file.clone()));
        with_agent(&test.places, start, async |outside| {
            outside.event("ready").await;
            write("\"192.0.2.11\", \"2001:db8:f::10\"");
            outside.send(Signal::Reload).await;
            let changed = outside.event("changed").await;
            assert_eq!(changed["vips"], serde_json::json!(["192.0.2.11", "2001:db8:f::10"]));
            assert_eq!(test.status().await.vips.len(), 2);
            write("\"192.0.2.12\", \"nonsense\"");
            outside.send(Signal::Reload).await;
            write("\"192.0.2.13\"");
            outside.send(Signal::Reload).await;
            let changed = outside.event("changed").await;
            assert_eq!(changed["vips"], serde_json::json!(["192.0.2.13"]));
        })
        .await
        .unwrap();
        assert_eq!(test.status().await.vips, ["192.0.2.13".parse::<std::net::IpAddr>().unwrap()]);
    });
}

#[test]
fn root_a_balancer_is_asked_and_its_last_answer_is_enough_to_start() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.ours.up("lo").await;
        let test = TestPlaces::new();
        let mut daemon = TestDaemon::start(FakeControl::new());
        let start = || {
            let address = daemon_address(&test);
            options(&test.places, Source::Balancer { address, interface: Some("lb0".into()) })
        };
        // The socket's path is what the balancer is known by.
        std::os::unix::fs::symlink(&daemon.socket, test.file("main.sock")).unwrap();
        with_agent(&test.places, start(), async |outside| {
            outside.event("ready").await;
        })
        .await
        .unwrap();
        assert_eq!(test.status().await.vips, sample_agent().vips);
        daemon.stop();
        assert_eq!(detach_of(&test.places).unwrap().len(), 2);
        with_agent(&test.places, start(), async |outside| {
            outside.event("ready").await;
        })
        .await
        .unwrap();
        assert_eq!(test.status().await.vips, sample_agent().vips);
        assert_eq!(test.status().await.tunnel_sources, sample_agent().tunnel_sources);
    });
}

fn daemon_address(test: &TestPlaces) -> String {
    test.file("main.sock").display().to_string()
}

#[test]
fn root_an_interface_that_was_made_anew_gets_the_program_again() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        let test = TestPlaces::new();
        with_agent(&test.places, options(&test.places, flags(served())), async |outside| {
            outside.event("ready").await;
            let old = test.status().await;
            net.ours.delete("lb0").await;
            net.veth("lb0", "srv1").await;
            outside.event("ready").await;
            let new = test.status().await;
            assert_ne!(new.link_id, old.link_id);
            assert_eq!(new.mode.as_deref(), Some("native"));
        })
        .await
        .unwrap();
    });
}

#[test]
fn root_another_interface_takes_the_program_along() {
    in_namespace(|| async {
        let net = TestNet::joined().await;
        net.veth("lb1", "srv1").await;
        let test = TestPlaces::new();
        for interface in ["lb0", "lb1"] {
            let agent = config::Agent { interface: interface.into(), ..served() };
            with_agent(&test.places, options(&test.places, flags(agent)), async |outside| {
                outside.event("ready").await;
            })
            .await
            .unwrap();
            assert_eq!(test.places.pins.linked_interfaces(), [interface]);
        }
    });
}

#[test]
fn root_what_cannot_start_says_why_and_changes_nothing() {
    in_namespace(|| async {
        let _net = TestNet::joined().await;
        let test = TestPlaces::new();
        let missing = config::Agent { interface: "eth9".into(), ..served() };
        let error = refused(&test.places, options(&test.places, flags(missing))).await;
        assert!(error.starts_with("interface eth9 does not exist; interfaces here: lo, lb0"), "{error}");
        let loopback = config::Agent { interface: "lo".into(), ..served() };
        let error = refused(&test.places, options(&test.places, flags(loopback))).await;
        assert!(error.contains("has no Ethernet address"), "{error}");
        let empty = config::Agent { vips: Vec::new(), ..served() };
        let error = refused(&test.places, options(&test.places, flags(empty))).await;
        assert!(error.starts_with("found no VIPs, expected at least one"), "{error}");
        fs::write(test.file("lb.toml"), "[daemon]\ninterfaces = [\"lb0\"]\n").unwrap();
        let error = refused(&test.places, options(&test.places, Source::File(test.file("lb.toml")))).await;
        assert!(error.contains("has no [agent] section"), "{error}");
        assert!(!test.places.pins.directory().exists());

        // Whose program it is, is told by the link that is pinned: here another agent's.
        let other = TestPlaces::new();
        with_agent(&other.places, options(&other.places, flags(served())), async |outside| {
            outside.event("ready").await;
            let prepare = Options { prepare: Prepare::Prepare, ..options(&test.places, flags(served())) };
            let error = refused(&test.places, prepare).await;
            assert!(
                error.contains("interface \"lb0\" already has an XDP program that is not ours"),
                "{error}"
            );
            assert!(error.contains("(\"agent\")"), "{error}");
            assert!(!test.places.record.exists() && !test.places.pins.directory().exists());
            let error = refused(&other.places, options(&other.places, flags(served()))).await;
            assert!(error.contains("is running on this host"), "{error}");
        })
        .await
        .unwrap();
    });
}
