//! What clients have of a node's memory, and whom others have suffered from.
//!
//! Of addresses only the one is named of which there is most to tell: no crowd makes this long.

use super::{Out, float};
use haven_admin::memory::{Incidents, Memory, MemoryUse};
use prometheus_client::metrics::MetricType;
use std::fmt;

pub(super) fn encode(memory: &Memory, out: &mut Out<'_>) -> fmt::Result {
    uses(memory, out)?;
    incidents(memory, out)
}

fn uses(memory: &Memory, out: &mut Out<'_>) -> fmt::Result {
    let kinds = [("requests", &memory.requests), ("answers", &memory.answers)];
    let each = |value: fn(&MemoryUse) -> u64| {
        kinds.map(|(of, used)| (vec![("of", of)], float(value(used))))
    };
    out.labelled(
        "client_memory_bytes",
        "Memory of clients' requests and answers that are not small",
        MetricType::Gauge,
        each(|used| used.bytes),
    )?;
    out.labelled(
        "client_memory_limit_bytes",
        "How much there is of it",
        MetricType::Gauge,
        each(|used| used.bytes_max),
    )?;
    out.labelled(
        "client_memory_waiting_connections",
        "Connections that wait for some of it",
        MetricType::Gauge,
        each(|used| used.waiting),
    )?;
    let most = kinds.map(|(of, used)| Some((of, used.most?.address.to_string(), used.most?.bytes)));
    out.labelled(
        "client_memory_most_bytes",
        "What the address has that has most of it",
        MetricType::Gauge,
        most.iter().flatten().map(|(of, address, bytes)| {
            let labels = vec![("of", *of), ("address", address.as_str())];
            (labels, float(*bytes))
        }),
    )
}

fn incidents(memory: &Memory, out: &mut Out<'_>) -> fmt::Result {
    let kinds: [(&str, &Incidents); 3] = [
        ("stood_still", &memory.lost),
        ("not_exported", &memory.refused),
        ("misbehaved", &memory.misbehaved),
    ];
    out.labelled(
        "client_incidents",
        "Connections closed because they stood still while others waited for memory, large requests refused because \
         nothing is exported to their client, connections closed because their client misbehaved",
        MetricType::Counter,
        kinds.map(|(what, incidents)| (vec![("what", what)], float(incidents.total))),
    )?;
    let most = kinds.map(|(what, incidents)| {
        let most = incidents.most?;
        Some((what, most.address.to_string(), most.count))
    });
    out.labelled(
        "client_incidents_most",
        "Those of the address that had most of them",
        MetricType::Gauge,
        most.iter().flatten().map(|(what, address, count)| {
            let labels = vec![("what", *what), ("address", address.as_str())];
            (labels, float(*count))
        }),
    )
}
