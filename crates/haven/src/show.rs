//! `haven config check`: what a configuration means, for people.

use crate::settings;
use haven_config::exports::Client;
use haven_config::{Config, Export, Portmapper, SquashMode};
use std::fmt::Write;

/// What a node with this configuration would serve.
pub fn summary(config: &Config) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(config, &mut out);
    out
}

fn write(config: &Config, out: &mut String) -> std::fmt::Result {
    let Config {
        node,
        cluster,
        service,
        exports,
        log,
        limits,
        health,
        metrics,
        warnings,
    } = config;
    writeln!(
        out,
        "node      {} (id {}), data in {}",
        node.name,
        node.id,
        node.data.display()
    )?;
    match cluster.nodes.as_slice() {
        [_] if !cluster.shared => writeln!(out, "cluster   none: this node serves alone")?,
        [own] => writeln!(
            out,
            "cluster   {}; the others reach this node at {} (who they are: haven node list)",
            cluster.name, own.address
        )?,
        nodes => {
            writeln!(
                out,
                "cluster   {}, {} nodes; {} must run",
                cluster.name,
                nodes.len(),
                nodes.len() / 2 + 1
            )?;
            for peer in nodes {
                writeln!(
                    out,
                    "          {} {} at {}",
                    peer.id, peer.name, peer.address
                )?;
            }
        }
    }
    writeln!(
        out,
        "service   {}: NFS on TCP port {}, MOUNT on port {}, listening on {}",
        service.name, service.nfs_port, service.mount_port, service.listen
    )?;
    let mapper = match service.portmapper {
        Portmapper::Auto => {
            "rpcbind if it runs, else the built-in one if port 111 is free".to_owned()
        }
        Portmapper::Off => "none: clients must be told the ports, and mount with nolock".to_owned(),
        Portmapper::Builtin(port) => format!("the built-in one, on port {port}"),
        Portmapper::Register => "the rpcbind of this machine".to_owned(),
    };
    writeln!(out, "          port mapper: {mapper}")?;
    for floating in &service.addresses {
        writeln!(
            out,
            "          floating address {}/{}",
            floating.address, floating.prefix
        )?;
    }
    if service.addresses.is_empty() && cluster.shared {
        writeln!(
            out,
            "          no floating address: clients do not follow when the service moves"
        )?;
    }
    for export in exports {
        writeln!(
            out,
            "export    {} ({}:{}, mode {:04o} when it is made)",
            export.path, export.uid, export.gid, export.mode
        )?;
        for client in &export.clients {
            writeln!(out, "          {}", options(client))?;
        }
    }
    let told = settings::of(config);
    for (at, (key, digest)) in told.keys.iter().enumerate() {
        let head = if at == 0 { "alike" } else { "" };
        writeln!(out, "{head:<10}{key} {digest}")?;
    }
    if !told.keys.is_empty() {
        writeln!(
            out,
            "          (on all nodes; limits may differ. haven status says which do)"
        )?;
    }
    for warning in warnings {
        writeln!(out, "warning   {warning}")?;
    }
    writeln!(
        out,
        "limits    {} connections, {} from one address; {} MiB of requests, {} MiB of answers: at most {} MiB for clients",
        limits.connections,
        limits.connections_per_address,
        limits.inflight_bytes >> 20,
        limits.answer_bytes >> 20,
        crate::bound::client_bytes_max(limits) >> 20
    )?;
    let reserve = health.reserve_bytes.map_or_else(
        || "5 % (256 to 4096 MiB)".to_owned(),
        |bytes| format!("{} MiB", bytes >> 20),
    );
    writeln!(
        out,
        "health    {reserve} kept free; a flush may take {} ms, a checkpoint {} ms",
        health.flush_max.as_millis(),
        health.checkpoint_max.as_millis()
    )?;
    if let Some(device) = &health.watchdog_device {
        writeln!(out, "watchdog  {}", device.display())?;
    }
    if let Some(listen) = metrics.listen {
        writeln!(out, "metrics   at http://{listen}/metrics, for everybody")?;
    }
    writeln!(
        out,
        "log       {} and graver, {:?}",
        log.level.as_str(),
        log.format
    )
}

/// The exports on one line.
pub fn exports(exports: &[Export]) -> String {
    let all = exports.iter().map(|export| {
        let clients: Vec<String> = export.clients.iter().map(options).collect();
        format!("{} for {}", export.path, clients.join(", "))
    });
    all.collect::<Vec<_>>().join(" | ")
}

/// What a client may do with an export.
fn options(client: &Client) -> String {
    let options = &client.options;
    let (uid, gid) = (options.squash.anonuid, options.squash.anongid);
    let access = if options.read_only {
        "read only"
    } else {
        "read and write"
    };
    let ids = match options.squash.mode {
        SquashMode::None => "ids are taken as they are".to_owned(),
        SquashMode::Root => format!("root becomes {uid}:{gid}"),
        SquashMode::All => format!("everybody becomes {uid}:{gid}"),
    };
    let ports = if options.secure {
        "; from ports below 1024 only"
    } else {
        ""
    };
    format!("{}: {access}; {ids}{ports}", client.who)
}
