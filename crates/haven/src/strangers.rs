//! Looks for machines that have a floating address although this node holds it.
//!
//! Safety does not depend on it (a stranger cannot answer for the service), but some clients may talk to it. So it
//! is looked for now and then, and told to people; nothing else is done.

use crate::addresses::Addresses;
use haven_admin::Conflict;
use haven_platform::probe;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::spawn_blocking;
use tracing::{debug, error, info};

/// How often is looked.
const PAUSE: Duration = Duration::from_secs(5);
/// How long an answer may take: neighbours on one network need less than a millisecond.
const PATIENCE: Duration = Duration::from_millis(200);

/// Those found by the last look.
#[derive(Debug, Default)]
pub struct Strangers {
    found: Mutex<Vec<Conflict>>,
}

impl Strangers {
    /// Those found by the last look.
    pub fn found(&self) -> Vec<Conflict> {
        self.found.lock().clone()
    }

    /// Looks for ever.
    pub async fn watch(self: Arc<Self>, addresses: Addresses) {
        loop {
            tokio::time::sleep(PAUSE).await;
            let held = addresses.placed();
            let looked = spawn_blocking(move || look(&held)).await;
            match looked {
                Ok(Ok(found)) => self.tell(found),
                // Needs a privilege that a node with floating addresses has.
                Ok(Err(why)) => debug!(%why, "cannot look for other holders of the addresses"),
                // The process ends.
                Err(_) => return,
            }
        }
    }

    fn tell(&self, found: Vec<Conflict>) {
        let mut known = self.found.lock();
        if *known == found {
            return;
        }
        for conflict in &found {
            if !known.contains(conflict) {
                error!(
                    address = %conflict.address,
                    mac = conflict.mac,
                    "another machine answers for a floating address: find it (ip neigh) and take the address off it"
                );
            }
        }
        if found.is_empty() {
            info!("no other machine answers for a floating address any more");
        }
        *known = found;
    }
}

fn look(held: &[haven_platform::addr::Placed]) -> Result<Vec<Conflict>, String> {
    let mut found = Vec::new();
    for placed in held {
        let other = probe::other_holder(placed, PATIENCE).map_err(|e| e.to_string())?;
        if let Some(mac) = other {
            let hex = mac.map(|byte| format!("{byte:02x}"));
            found.push(Conflict {
                address: placed.ip(),
                mac: hex.join(":"),
            });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_what_the_last_look_found() {
        let strangers = Strangers::default();
        let conflict = Conflict {
            address: "192.0.2.1".parse().unwrap(),
            mac: "02:00:00:00:00:01".into(),
        };
        strangers.tell(vec![conflict.clone()]);
        assert_eq!(strangers.found(), [conflict]);
        strangers.tell(Vec::new());
        assert_eq!(strangers.found(), []);
    }
}
