//! Following interfaces and addresses.

use std::{sync::Arc, time::Duration};

use rtnetlink::MulticastGroup;
use tokio::{sync::watch, time::sleep};

use super::Inventory;
use crate::net::{
    NetError, Netlink, Task,
    netlink::{EVENT_BUFFER_BYTES, Event, EventSocket},
};

/// After a failed socket, and after lost notifications: bounds the work that a storm of either can cause.
const BREATH: Duration = Duration::from_millis(200);

/// A live [`Inventory`]: notified by the kernel, read again when notifications were lost. Ends when dropped.
#[derive(Debug)]
pub struct InventoryWatch {
    current: watch::Receiver<Arc<Inventory>>,
    _task: Task,
}

struct Session {
    events: EventSocket,
    netlink: Netlink,
}

impl Session {
    /// Subscribes first and reads second, so that no change falls between the two.
    async fn open() -> Result<(Self, Inventory), NetError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let events = EventSocket::open(&groups, EVENT_BUFFER_BYTES)?;
        let netlink = Netlink::connect()?;
        let inventory = Inventory::read(&netlink).await?;
        Ok((Self { events, netlink }, inventory))
    }
}

impl InventoryWatch {
    /// Reads the inventory of the calling thread's network namespace and follows it in a background task.
    ///
    /// # Errors
    /// When the kernel gives no socket or no answer. Later failures are logged and tried again.
    pub async fn start() -> Result<Self, NetError> {
        let (session, inventory) = Session::open().await?;
        let (publish, current) = watch::channel(Arc::new(inventory));
        let task = Task(tokio::spawn(run(session, publish)));
        Ok(Self { current, _task: task })
    }

    /// The inventory as last seen.
    #[must_use]
    pub fn current(&self) -> Arc<Inventory> {
        Arc::clone(&self.current.borrow())
    }

    /// A receiver that wakes on every change; changes in quick succession arrive as one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Inventory>> {
        self.current.clone()
    }
}

async fn run(first: Session, publish: watch::Sender<Arc<Inventory>>) {
    let mut session = first;
    loop {
        let error = follow(&mut session, &publish).await;
        log::warn!("following interfaces: {error}; starting again");
        session = loop {
            sleep(BREATH).await;
            match Session::open().await {
                Ok((session, inventory)) => {
                    put(&publish, inventory);
                    break session;
                }
                Err(error) => log::warn!("following interfaces: {error}; trying again"),
            }
        };
    }
}

/// Follows until the socket fails.
async fn follow(session: &mut Session, publish: &watch::Sender<Arc<Inventory>>) -> NetError {
    loop {
        let events = match session.events.recv().await {
            Ok(events) => events,
            Err(error) => return error,
        };
        if events.iter().all(|event| matches!(event, Event::Changed(_))) {
            let mut inventory = Inventory::clone(&publish.borrow());
            let mut changed = false;
            for event in &events {
                if let Event::Changed(message) = event {
                    changed |= inventory.apply(message);
                }
            }
            if changed {
                put(publish, inventory);
            }
        } else {
            match Inventory::read(&session.netlink).await {
                Ok(inventory) => put(publish, inventory),
                Err(error) => return error,
            }
            sleep(BREATH).await;
        }
    }
}

fn put(publish: &watch::Sender<Arc<Inventory>>, inventory: Inventory) {
    publish.send_if_modified(|current| {
        let changed = **current != inventory;
        if changed {
            *current = Arc::new(inventory);
        }
        changed
    });
}
