//! A daemon for tests: a fixed status, and a note of every change that was asked for.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

use tokio::sync::{Semaphore, oneshot};

use super::{
    Client, TcpServer, UnixServer,
    change::Change,
    control::{Control, Reply},
    error::ApiError,
    plan::{Diff, History, InForce, MemoryPlan, Pending, Plan, Record, ServicePlan},
    transaction::{Author, Edit, Transaction, Via, What},
    types::{
        AgentInfo, BackendState, BackendStatus, Drift, FlowTable, InterfaceMode, InterfaceStatus,
        ServiceMode, ServiceStatus, Status, Timestamp,
    },
};
use crate::config::{AdminState, Affinity, Forward, Protocol, Rate};

/// The moment of the sample: 2031-05-07T17:24:49Z.
pub(crate) const NOW: i64 = 1_935_941_089;

/// Two services, one with a failed and a draining backend.
pub(crate) fn sample_status() -> Status {
    let backend = |name: &str, last: u8, state, since: i64| BackendStatus {
        name: name.into(),
        address: format!("198.51.100.{last}").parse().unwrap(),
        port: None,
        weight: 100,
        admin: AdminState::Up,
        state,
        reason: String::new(),
        since: Timestamp::from_unix(NOW - since),
        next_hop: "resolved".into(),
        flows: None,
        slow_start: None,
        slots: 10_921,
        share: 0.666_687,
        packets: 100_000,
        bytes: 6_400_000,
    };
    let b2 = BackendStatus {
        state: BackendState::Failed,
        reason: "connection refused".into(),
        next_hop: "no neighbour entry for 198.51.100.12 on eth0".into(),
        slots: 0,
        share: 0.0,
        packets: 23_456,
        bytes: 1_501_184,
        ..backend("b2", 12, BackendState::Failed, 75)
    };
    let b3 = BackendStatus {
        port: Some(8080),
        admin: AdminState::Drain,
        slots: 5_460,
        share: 0.333_313,
        packets: 0,
        bytes: 0,
        ..backend("b3", 13, BackendState::Draining, 7_260)
    };
    let web = ServiceStatus {
        name: "web".into(),
        addresses: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        ports: vec!["80".into(), "443".into()],
        protocol: Protocol::Tcp,
        affinity: Affinity::Addresses,
        forward: Forward::Ipip,
        desired_digest: "3f2a9c0011223344".into(),
        installed_digest: "77aa000011223344".into(),
        slots: 16_381,
        unsettled: 5_460,
        exceptions: 3,
        mode: ServiceMode::Limited,
        ready: 1,
        ready_of: 2,
        packets: 123_456,
        bytes: 7_901_184,
        limit: Some(Rate { rate: 1_000, burst: 2_000 }),
        backends: vec![backend("b1", 11, BackendState::Ready, 349_200), b2, b3],
    };
    let dns = ServiceStatus {
        name: "dns".into(),
        addresses: vec!["192.0.2.53".parse().unwrap()],
        ports: vec!["any".into()],
        protocol: Protocol::Udp,
        affinity: Affinity::Flow,
        forward: Forward::L2,
        installed_digest: "3f2a9c0011223344".into(),
        slots: 251,
        unsettled: 0,
        exceptions: 0,
        packets: 0,
        bytes: 0,
        limit: None,
        backends: vec![BackendStatus {
            flows: Some(42),
            slots: 251,
            share: 1.0,
            packets: 0,
            bytes: 0,
            ..backend("b1", 11, BackendState::Ready, 10)
        }],
        ..web.clone()
    };
    Status {
        abi: 1,
        name: "main".into(),
        version: "0.1.0".into(),
        generation: 12,
        started: Timestamp::from_unix(NOW - 11_520),
        interfaces: vec![InterfaceStatus {
            name: "eth0".into(),
            mode: InterfaceMode::Generic,
            mode_reason: "the driver has no XDP".into(),
        }],
        services: vec![web, dns],
        reasons: BTreeMap::from([
            ("forwarded".into(), 123_456),
            ("limited".into(), 7),
            ("not_a_service".into(), 2_000_000),
            ("no_backend".into(), 0),
        ]),
        flow_table: FlowTable {
            capacity: 1_048_576,
            used: 42,
            hits: 1_000,
            inherited: 40,
            rehashed: 3,
            ..FlowTable::default()
        },
        memory_bytes: 12_582_912,
        drift: Drift {
            count: 2,
            last: Some(Timestamp::from_unix(NOW - 600)),
            what: vec!["table of service web".into()],
        },
        warnings: vec!["interface eth0 runs in generic mode: expect a tenth of the packet rate".into()],
    }
}

/// What the sample tells agents.
pub(crate) fn sample_agent() -> AgentInfo {
    AgentInfo {
        vips: vec!["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        tunnel_sources: vec!["198.51.100.0/28".parse().unwrap(), "2001:db8:1::1/128".parse().unwrap()],
        gue_port: 6080,
        peers: vec!["198.51.100.11".parse().unwrap()],
    }
}

/// Notes calls; refuses them all when told to.
pub(crate) struct FakeControl {
    status: Mutex<Status>,
    calls: Mutex<Vec<String>>,
    refusal: Option<ApiError>,
    /// Where reloads wait.
    gate: Option<Gate>,
}

/// Holds reloads until they are let through, and tells when one came and when one ended.
struct Gate {
    pass: Semaphore,
    came: Mutex<mpsc::Sender<()>>,
    ended: Mutex<mpsc::Sender<()>>,
}

/// What a test with a gate listens to.
pub(crate) struct Watch {
    pub(crate) came: mpsc::Receiver<()>,
    pub(crate) ended: mpsc::Receiver<()>,
}

impl FakeControl {
    fn with(refusal: Option<ApiError>, gate: Option<Gate>) -> Arc<Self> {
        Arc::new(Self { status: Mutex::new(sample_status()), calls: Mutex::default(), refusal, gate })
    }

    pub(crate) fn new() -> Arc<Self> {
        Self::with(None, None)
    }

    pub(crate) fn refusing(refusal: ApiError) -> Arc<Self> {
        Self::with(Some(refusal), None)
    }

    /// Reloads wait until [`FakeControl::let_through`].
    pub(crate) fn holding() -> (Arc<Self>, Watch) {
        let ((came, see_came), (ended, see_ended)) = (mpsc::channel(), mpsc::channel());
        let gate = Gate { pass: Semaphore::new(0), came: Mutex::new(came), ended: Mutex::new(ended) };
        (Self::with(None, Some(gate)), Watch { came: see_came, ended: see_ended })
    }

    /// Lets this many reloads through.
    pub(crate) fn let_through(&self, reloads: usize) {
        self.gate.as_ref().unwrap().pass.add_permits(reloads);
    }

    /// Calls so far, and forgets them.
    pub(crate) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note<T: Send + 'static>(&self, call: String, value: T) -> Reply<'_, T> {
        self.calls.lock().unwrap().push(call);
        let answer = match &self.refusal {
            Some(e) => Err(e.clone()),
            None => Ok(value),
        };
        Box::pin(std::future::ready(answer))
    }

    fn changed(&self, call: String) -> Reply<'_, Change> {
        let change = Change {
            record: Some(3),
            confirm_until: None,
            generation: 13,
            changed: true,
            slots_moved: 5_461,
            slots_total: 16_381,
            message: call.clone(),
        };
        self.note(call, change)
    }
}

impl Control for FakeControl {
    fn status(&self) -> Reply<'_, Status> {
        self.note("status".into(), self.status.lock().unwrap().clone())
    }

    fn agent(&self) -> Reply<'_, AgentInfo> {
        self.note("agent".into(), sample_agent())
    }

    fn change(&self, transaction: Transaction) -> Reply<'_, Change> {
        let answer = self.changed(call(&transaction));
        let Some(gate) = self.gate.as_ref().filter(|_| transaction.what == What::File) else { return answer };
        Box::pin(async move {
            // A test that has ended no longer listens.
            let _ = gate.came.lock().unwrap().send(());
            gate.pass.acquire().await.unwrap().forget();
            let _ = gate.ended.lock().unwrap().send(());
            answer.await
        })
    }

    fn plan(&self, transaction: Transaction) -> Reply<'_, Plan> {
        self.note(format!("plan {}", call(&transaction)), sample_plan())
    }

    fn confirm(&self, _: Author) -> Reply<'_, Change> {
        self.changed("confirm".into())
    }

    fn history(&self) -> Reply<'_, History> {
        self.note("history".into(), sample_history())
    }

    fn diff(&self, from: Option<u64>, to: Option<u64>) -> Reply<'_, Diff> {
        let diff = Diff { from: "in force".into(), to: "lb.toml".into(), diff: "-a = 1\n+a = 2\n".into() };
        self.note(format!("diff {from:?} {to:?}"), diff)
    }

    fn config(&self) -> Reply<'_, InForce> {
        self.note("config".into(), InForce { digest: "5e".repeat(32), text: "[daemon]\n".into() })
    }
}

/// A transaction as the tests expect it to be noted.
fn call(transaction: &Transaction) -> String {
    let mut words = match &transaction.what {
        What::Edits(edits) => edits.iter().map(edit).collect::<Vec<_>>().join("; "),
        What::File => "reload".into(),
        What::Text { text, base } => format!("text {text:?} base {base:?}"),
        What::Rollback { to } => format!("rollback {to:?}"),
    };
    if let Some(reason) = &transaction.reason {
        words += &format!(" because {reason}");
    }
    if let Some(confirm) = transaction.confirm {
        words += &format!(" confirm {confirm:?}");
    }
    words
}

fn edit(edit: &Edit) -> String {
    let place = |service: &Option<String>| service.clone().unwrap_or_else(|| "*".into());
    match edit {
        Edit::AddService { service } => format!("add service {}", serde_json::to_string(service).unwrap()),
        Edit::RemoveService { service } => format!("remove service {service}"),
        Edit::AddBackend { service, backend: b } => format!(
            "add {service}/{} {} port {:?} weight {} {:?}",
            b.resolved_name(),
            b.address,
            b.port,
            b.weight,
            b.state
        ),
        Edit::RemoveBackend { service, backend } => format!("remove {}/{backend}", place(service)),
        Edit::SetBackend { service, backend, patch } => {
            format!("set {}/{backend} {}", place(service), serde_json::to_string(patch).unwrap())
        }
        Edit::SetLimit { service, limit } => format!("limit {service} {}/{}", limit.rate, limit.burst),
        Edit::ClearLimit { service } => format!("clear {service}"),
    }
}

/// A plan with something in every field.
pub(crate) fn sample_plan() -> Plan {
    Plan {
        changed: true,
        changes: vec!["service web: backend b4 added (198.51.100.14, weight 100)".into()],
        slots_moved: 0,
        slots_moved_when_ready: 4_095,
        slots_total: 16_381,
        services: vec![ServicePlan {
            name: "web".into(),
            slots_moved: 0,
            slots_moved_when_ready: 4_095,
            slots_total: 16_381,
            share_moved: 0.25,
            slots_protected: 4_000,
            slots_at_risk: 95,
        }],
        flows_protected: 42,
        flows_at_risk: 7,
        memory: MemoryPlan {
            slots_now: 16_632,
            slots_during: 33_013,
            slots_after: 16_632,
            slots_capacity: 1_048_576,
            bytes: 12_582_912,
        },
        warnings: vec!["hash_seed is fixed while the daemon runs".into()],
    }
}

/// Two records, the second waits to be confirmed.
pub(crate) fn sample_history() -> History {
    let record = |number, via, reason: Option<&str>| Record {
        number,
        time: Timestamp::from_unix(NOW - 60),
        author: Author { via, uid: Some(0), pid: Some(4_711) },
        reason: reason.map(Into::into),
        message: "set web/b1".into(),
        digest: "5e".repeat(32),
        bytes: 512,
    };
    History {
        history: vec![record(1, Via::Start, None), record(2, Via::Socket, Some("rack 4 burns"))],
        pending: Some(Pending { number: 2, back_to: 1, until: Timestamp::from_unix(NOW + 60) }),
        edited: true,
    }
}

/// A [`FakeControl`] served on a real unix socket in a directory of its own, and on TCP on the loopback, by a thread
/// of its own: the client blocks.
pub(crate) struct TestDaemon {
    pub(crate) control: Arc<FakeControl>,
    pub(crate) socket: PathBuf,
    pub(crate) tcp: std::net::SocketAddr,
    dir: tempfile::TempDir,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestDaemon {
    pub(crate) fn start(control: Arc<FakeControl>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("lb/main.sock");
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, started) = mpsc::channel();
        let (path, served) = (socket.clone(), Arc::clone(&control));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let unix = UnixServer::bind(&path, None).await.unwrap();
                let tcp = TcpServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
                ready.send(tcp.address()).unwrap();
                let until = async { drop(stopped.await) };
                let public = tcp.serve(Arc::clone(&served) as _, std::future::pending());
                tokio::select! {
                    () = unix.serve(served.clone(), until) => {}
                    () = public => {}
                }
            });
        });
        let tcp = started.recv().unwrap();
        Self { control, socket, tcp, dir, stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new("main", Some(self.socket.clone()))
    }

    /// Tells the server to stop, and does not wait.
    pub(crate) fn tell_to_stop(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the server and waits for its end; the directory stays until the end of the test.
    pub(crate) fn stop(&mut self) {
        self.tell_to_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        assert!(self.dir.path().exists());
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join().is_ok();
            assert!(ended || std::thread::panicking(), "the server's thread panicked");
        }
    }
}
