//! The clients of a laboratory: a thread in a network namespace of its own, as another machine would be.

use super::lab::{EXPORT, FLOATING};
use crate::classic::{self, Acknowledged, Load, Recorder, Target, Verdict};
use haven_client::Options;
use haven_platform::netns::Netns;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use tokio::sync::oneshot;

/// A load on the floating address.
pub struct ClientThread {
    /// What the clients feel.
    pub recorder: Arc<Recorder>,
    finish: oneshot::Sender<()>,
    outcome: oneshot::Receiver<(Acknowledged, Verdict)>,
}

impl ClientThread {
    /// Starts so many clients, each with a connection of its own.
    ///
    /// # Errors
    /// What kept them from mounting, in words.
    pub async fn start(netns: &Arc<Netns>, clients: usize) -> Result<Self, String> {
        let (ready, is_ready) = oneshot::channel();
        let (finish, finished) = oneshot::channel();
        let (outcome_in, outcome) = oneshot::channel();
        let (entered, has_entered) = std_mpsc::channel::<Result<(), String>>();
        let body = move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                let target = Target {
                    nfs: SocketAddr::from((FLOATING, haven_config::NFS_PORT_DEFAULT)),
                    export: EXPORT.into(),
                    // What these clients wait is what a user waits.
                    options: Options {
                        mount_port: haven_config::MOUNT_PORT_DEFAULT,
                        ..Options::hard_mount()
                    },
                };
                match Load::start(&target, clients).await {
                    Err(why) => drop(ready.send(Err(why))),
                    Ok(load) => {
                        let _ = ready.send(Ok(Arc::clone(&load.recorder)));
                        let _ = finished.await;
                        let told = load.finish().await;
                        let verdict = classic::verify(&target, &told).await;
                        let _ = outcome_in.send((told, verdict));
                    }
                }
            });
        };
        spawn_in(netns, entered, body)?;
        has_entered.recv().map_err(|e| e.to_string())??;
        let recorder = is_ready.await.map_err(|e| e.to_string())??;
        Ok(Self {
            recorder,
            finish,
            outcome,
        })
    }

    /// Ends the load and reads everything back: operations acknowledged, and the verdict.
    ///
    /// # Errors
    /// When the clients' thread has ended early.
    pub async fn finish(self) -> Result<(u64, Verdict), String> {
        let _ = self.finish.send(());
        let (_, verdict) = self
            .outcome
            .await
            .map_err(|_| "the client's thread ended early")?;
        Ok((self.recorder.acknowledged(), verdict))
    }
}

/// Starts a thread that lives in `netns`.
fn spawn_in(
    netns: &Arc<Netns>,
    entered: std_mpsc::Sender<Result<(), String>>,
    body: impl FnOnce() + Send + 'static,
) -> Result<(), String> {
    let netns = Arc::clone(netns);
    let thread = std::thread::Builder::new().name("client".into());
    let run = move || {
        let result = netns.enter_thread().map_err(|e| e.to_string());
        let ok = result.is_ok();
        let _ = entered.send(result);
        if ok {
            body();
        }
    };
    thread.spawn(run).map(drop).map_err(|e| e.to_string())
}
