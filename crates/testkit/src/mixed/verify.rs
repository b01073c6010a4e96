//! Holds a directory against what its client believes.

use super::model::{Content, Id, Model, TOP};
use super::{Tally, words};
use haven::classic::{list, read_all};
use haven_client::Client;
use haven_proto::nfs3::Fattr3;
use std::collections::BTreeSet;

/// Bytes of a READDIR answer: few, so that a listing takes several.
const READDIR_BYTES: u32 = 512;
/// Bytes of a READ.
const READ_BYTES: u32 = 256 << 10;

/// Everything below the client's directory.
pub async fn all(client: &Client, model: &Model, tally: &mut Tally) -> Result<(), String> {
    let mut left = vec![(TOP, "top".to_owned())];
    while let Some((dir, path)) = left.pop() {
        listing(client, model, dir, tally).await?;
        let mut subdirs = 0;
        for (name, id) in model.entries(dir) {
            let path = format!("{path}/{name}");
            let found = match client.lookup(&model.handle(dir), name.as_str()).await {
                Ok(found) => found.object,
                Err(why) => {
                    tally.lost(format!("{path}: {why}"));
                    continue;
                }
            };
            if found != model.handle(*id) {
                tally.lost(format!("{path} is another file than the one that was made"));
                continue;
            }
            node(client, model, *id, &path, tally).await?;
            if matches!(model.nodes[id].content, Content::Dir(_)) {
                subdirs += 1;
                left.push((*id, path));
            }
        }
        let attr = client.getattr(&model.handle(dir)).await.map_err(words)?;
        if attr.nlink != 2 + subdirs {
            let nlink = attr.nlink;
            tally.half(format!(
                "{path} has {nlink} links and {subdirs} subdirectories"
            ));
        }
    }
    Ok(())
}

/// The names that READDIR shows.
pub async fn listing(
    client: &Client,
    model: &Model,
    dir: Id,
    tally: &mut Tally,
) -> Result<(), String> {
    let names = list(client, &model.handle(dir), READDIR_BYTES).await?;
    let shown: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    if shown.len() != names.len() {
        tally.half(format!("READDIR shows a name twice: {names:?}"));
    }
    let expected: BTreeSet<&str> = model.entries(dir).keys().map(String::as_str).collect();
    for name in expected.difference(&shown) {
        tally.lost(format!("READDIR does not show {name}"));
    }
    for name in shown.difference(&expected) {
        tally.lost(format!(
            "READDIR shows {name}, which was removed or never made"
        ));
    }
    Ok(())
}

/// Attributes and content of anything but a directory.
async fn node(
    client: &Client,
    model: &Model,
    id: Id,
    path: &str,
    tally: &mut Tally,
) -> Result<(), String> {
    let node = &model.nodes[&id];
    let attr: Fattr3 = client.getattr(&node.handle).await.map_err(words)?;
    if !matches!(node.content, Content::Dir(_)) && attr.nlink != node.names {
        let (nlink, names) = (attr.nlink, node.names);
        tally.half(format!("{path} has {nlink} links and {names} names"));
    }
    match &node.content {
        Content::Dir(_) => Ok(()),
        Content::File(_) => content(client, model, id, path, tally).await,
        Content::Sparse(sparse) => sparse.verify(client, &node.handle, path, tally).await,
        Content::Link(target) => {
            let found = client.readlink(&node.handle).await.map_err(words)?;
            if found.data.0 != target.as_bytes() {
                tally.lost(format!("{path} points elsewhere"));
            }
            Ok(())
        }
    }
}

/// The bytes of a file.
pub async fn content(
    client: &Client,
    model: &Model,
    file: Id,
    path: &str,
    tally: &mut Tally,
) -> Result<(), String> {
    let found = read_all(client, &model.handle(file), READ_BYTES)
        .await
        .map_err(|why| format!("{path}: {why}"))?;
    let expected = model.bytes(file);
    if found.len() != expected.len() {
        let (is, was) = (found.len(), expected.len());
        tally.lost(format!("{path} has {is} bytes, acknowledged were {was}"));
    } else if let Some(at) = (0..found.len()).find(|at| found[*at] != expected[*at]) {
        tally.lost(format!("{path} differs at byte {at} of {}", found.len()));
    }
    Ok(())
}
