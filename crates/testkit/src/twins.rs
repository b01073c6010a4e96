//! Clients with like numbers behind one address, as containers of one machine that start in one clock tick are: their
//! requests are the same bytes, over connections of their own.
//!
//! Both want the same lock file: one of them must get it, each time. A winner that is told so holds a file that is there;
//! whoever begins its numbers anew, and sends what another one has sent before, is answered anew.

use crate::mixed::words;
use haven::classic::Target;
use haven_client::{Client, ClientError, Options};
use haven_proto::nfs3::{Createhow3, Fh3, Nfsstat3, Sattr3};
use std::sync::atomic::{AtomicU64, Ordering};

/// What all of them begin their numbers with.
const FIRST_XID: u32 = 7;
/// The lock.
const LOCK: &str = "lock";

/// Races for ever; returns when something is not as it must be. `rounds` are counted.
pub async fn race(target: &Target, rounds: &AtomicU64) -> String {
    let judge = target.client();
    let root = match judge.mount(&target.export).await {
        Ok(root) => root,
        Err(why) => return words(why),
    };
    loop {
        if let Err(why) = once(&judge, target, &root).await {
            return format!("twins, round {}: {why}", rounds.load(Ordering::Relaxed));
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

async fn once(judge: &Client, target: &Target, root: &Fh3) -> Result<(), String> {
    let twins = [twin(target), twin(target)];
    let [one, other] = &twins;
    let (one, other) = tokio::join!(take(one, root), take(other, root));
    let held = judge.lookup(root, LOCK).await.map_err(words)?.object;
    match (one?, other?) {
        (Some(lock), None) | (None, Some(lock)) if lock == held => {}
        (Some(_), None) | (None, Some(_)) => {
            return Err(
                "the lock that was taken is another file than the one that is there".into(),
            );
        }
        (Some(_), Some(_)) => return Err("both have the lock".into()),
        (None, None) => return Err("nobody has the lock".into()),
    }
    judge.remove(root, LOCK).await.map(drop).map_err(words)
}

/// Takes the lock, if it is free.
async fn take(client: &Client, root: &Fh3) -> Result<Option<Fh3>, String> {
    let how = Createhow3::Guarded(Sattr3::default());
    match client.create(root, LOCK, how).await {
        Ok(made) => made.obj.map(Some).ok_or("CREATE gave no handle".into()),
        Err(ClientError::Nfs(Nfsstat3::Exist)) => Ok(None),
        Err(why) => Err(words(why)),
    }
}

fn twin(target: &Target) -> Client {
    let options = Options {
        first_xid: Some(FIRST_XID),
        ..target.options.clone()
    };
    Client::new(target.nfs, options)
}
