//! Limits that are set, changed and taken away while the balancer runs.

use std::time::Duration;

use lb_tests::{flood::Flood, topology::World};
use lb_userspace::config::Rate;

use crate::scene::{PORT, Scene, is_the_rate, scene, wait};

/// A short flood; hardly any rate, so that the burst is what arrives.
fn short(scene: &Scene, index: u16) -> (std::net::IpAddr, Vec<Duration>) {
    let source = World::source_v4(index);
    let target = scene.site.vip4(PORT);
    let duration = Duration::from_millis(200);
    let flood = Flood { source: (source, 0).into(), target, per_second: 1000, duration, cpu: None };
    let times = scene.send(&[flood]).remove(0);
    (source, times)
}

/// Sends a short flood, of which `limit` is let through.
fn is_limited(scene: &Scene, index: u16, limit: Rate) {
    let refused = scene.refused();
    scene.sink.clear();
    let (source, times) = short(scene, index);
    scene.all_accounted(times.len(), refused);
    is_the_rate(&times, scene.sink.arrivals()[&source].len(), limit);
}

/// Sends a short flood, all of which arrives.
fn is_unlimited(scene: &Scene, index: u16) {
    let refused = scene.refused();
    scene.sink.clear();
    let (source, times) = short(scene, index);
    wait(&scene.sink, source, times.len());
    assert_eq!(scene.refused(), refused);
}

#[test]
fn the_command_line_sets_changes_and_clears_a_limit() {
    let scene = scene(None);
    let lb = &scene.site.lb;
    is_unlimited(&scene, 1);

    let set = |rate: u32, burst: u32| {
        lb.cli(&["limit", "set", "web", "--rate", &rate.to_string(), "--burst", &burst.to_string()]).unwrap();
        let shown = lb.cli(&["limit", "show", "web", "--json"]).unwrap();
        let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(shown["limit"], serde_json::json!({ "rate": rate, "burst": burst }));
        Rate { rate, burst }
    };
    // Sources that have not sent before have their whole burst.
    is_limited(&scene, 2, set(1, 10));
    is_limited(&scene, 3, set(1, 30));
    let shown = lb.cli(&["limit", "show"]).unwrap();
    assert!(shown.contains("web") && shown.contains("six") && shown.contains("30"), "{shown}");

    lb.cli(&["limit", "clear", "web"]).unwrap();
    // The one that was over the limit as well.
    for index in [2, 3, 4] {
        is_unlimited(&scene, index);
    }
    let view = scene.site.view().unwrap();
    assert_eq!(view.service("web")["limit"], serde_json::Value::Null);
}

#[test]
fn a_limit_survives_a_new_daemon_with_what_sources_have_used() {
    let limit = Rate { rate: 1, burst: 30 };
    let mut scene = scene(Some(limit));
    is_limited(&scene, 1, limit);
    scene.site.lb.kill().unwrap();
    scene.site.lb.start_again().unwrap();
    let refused = scene.refused();
    scene.sink.clear();
    let (source, times) = short(&scene, 1);
    scene.all_accounted(times.len(), refused);
    let again = scene.sink.arrivals().get(&source).map_or(0, Vec::len);
    // One token per second since the first flood; a fresh bucket would give 30 at once.
    assert!(again < 30, "{again} packets of a source that had used its burst");
    is_limited(&scene, 2, limit);
}
