//! Operating a real cluster: every case that `haven status` tells of, planned moves, standby.
//!
//! Everything is asked for as an operator would: by starting the binary. What it prints is shown.

use haven::demo::client::ClientThread;
use haven::demo::lab::{FLOATING, Lab, NODES};
use haven_platform::addr::{self, Placed, Subnet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long the cluster may take to get anywhere.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(50);
/// Operations that a client completes, so that a failover is felt.
const OPERATIONS: u32 = 50;

/// Exit status and words of a command.
struct Said {
    code: i32,
    words: String,
}

struct Operator {
    lab: Lab,
    exe: PathBuf,
}

/// Plays every case.
///
/// # Errors
/// What is not as it must be, in words.
pub async fn run(exe: &Path, dir: &Path) -> Result<(), String> {
    let mut lab = Lab::build(dir, exe, "")?;
    lab.start_all().await?;
    let exe = exe.to_owned();
    let mut operator = Operator { lab, exe };
    let client = ClientThread::start(&operator.lab.client, 1).await?;
    client.recorder.wait_fresh(OPERATIONS).await?;
    operator.moves().await?;
    operator.standby(&client).await?;
    client.recorder.wait_fresh(OPERATIONS).await?;
    let (told, verdict) = client.finish().await?;
    if told == 0 || verdict.lost + verdict.doubled + verdict.out_of_order > 0 {
        return Err(format!("operations: {told}, {verdict:?}"));
    }
    operator.conflict().await?;
    operator.losses().await
}

fn words(e: impl std::fmt::Display) -> String {
    e.to_string()
}

fn expect(said: &Said, code: i32, words: &[&str]) -> Result<(), String> {
    // As the words are, wherever the line ends.
    let flat: Vec<&str> = said.words.split_whitespace().collect();
    let flat = flat.join(" ");
    match words.iter().find(|w| !flat.contains(**w)) {
        None if said.code == code => Ok(()),
        missing => Err(format!(
            "status {} instead of {code}, or {missing:?} is missing:\n{}",
            said.code, said.words
        )),
    }
}

impl Operator {
    fn name(&self, index: usize) -> &str {
        &self.lab.nodes[index].name
    }

    /// Runs the binary for a node.
    fn say(&self, index: usize, command: &str, rest: &[&str]) -> Result<Said, String> {
        let output = Command::new(&self.exe)
            .arg(command)
            .arg("--config")
            .arg(self.lab.nodes[index].config())
            .args(rest)
            .output()
            .map_err(|e| e.to_string())?;
        let words = [output.stdout, output.stderr].concat();
        Ok(Said {
            code: output.status.code().unwrap_or(-1),
            words: String::from_utf8_lossy(&words).into_owned(),
        })
    }

    /// Waits until the status of a node is as it should be, and shows it.
    async fn status(&self, index: usize, code: i32, words: &[&str]) -> Result<(), String> {
        let start = Instant::now();
        loop {
            let said = self.say(index, "status", &[])?;
            match expect(&said, code, words) {
                Ok(()) => {
                    println!(
                        "$ haven status   # on {}: {code}\n{}",
                        self.name(index),
                        said.words
                    );
                    return Ok(());
                }
                Err(why) if start.elapsed() > PATIENCE => return Err(why),
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn refused(&self, index: usize, command: &str, rest: &[&str], why: &str) -> Result<(), String> {
        let said = self.say(index, command, rest)?;
        println!("$ haven {command} {}\n{}", rest.join(" "), said.words);
        expect(&said, 1, &[why])
    }

    fn done(&self, index: usize, command: &str, rest: &[&str]) -> Result<(), String> {
        expect(&self.say(index, command, rest)?, 0, &[])
    }

    async fn led_by(&self, index: usize) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.lab.status(index).await.is_ok_and(|s| s.serving) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(format!("node {} does not lead", self.name(index)))
    }

    async fn moves(&mut self) -> Result<(), String> {
        let old = self.lab.wait_serving(None).await?;
        let new = (old + 1) % NODES;
        self.status(old, 0, &["HEALTHY", "serving", "10.77.0.100 on"])
            .await?;
        let (from, to) = (self.name(old).to_owned(), self.name(new).to_owned());
        self.refused(
            old,
            "migrate",
            &["x"],
            "there is no node x; the nodes are a, b, c",
        )?;
        self.refused(
            old,
            "migrate",
            &["smb", &to],
            "there is no service smb; it is nfs",
        )?;
        self.refused(old, "migrate", &[&from], "leads already")?;
        // Said on a node that is neither: it is carried to the leader.
        self.done(NODES - old - new, "migrate", &["nfs", &to])?;
        self.led_by(new).await?;
        let moved = format!("from {from} to {to}");
        self.status(new, 0, &[&moved, "handed over by plan", "clients waited"])
            .await?;
        // Others have its word.
        self.status(old, 0, &[&moved]).await?;
        self.done(new, "migrate", &["nfs"])?;
        self.lab.wait_serving(Some(new)).await.map(drop)
    }

    async fn standby(&mut self, client: &ClientThread) -> Result<(), String> {
        let first = self.lab.wait_serving(None).await?;
        let name = self.name(first).to_owned();
        self.status(first, 0, &["HEALTHY"]).await?;
        // Carried to the node that is meant.
        self.done((first + 1) % NODES, "standby", &[&name])?;
        let second = self.lab.wait_serving(Some(first)).await?;
        self.status(second, 0, &["ready, standby"]).await?;
        self.refused(second, "migrate", &[&name], "is in standby")?;
        // It is kept over a crash, and whoever else is left takes over.
        self.lab.kill(&[first])?;
        self.lab.start(first)?;
        self.lab.wait_caught_up(first, second).await?;
        self.status(second, 0, &["ready, standby"]).await?;
        client.recorder.wait_fresh(OPERATIONS).await?;
        self.lab.kill(&[second])?;
        let third = NODES - first - second;
        self.led_by(third).await?;
        self.status(
            third,
            1,
            &["its process ended", "no other node may take over"],
        )
        .await?;
        let own = self.name(third).to_owned();
        self.refused(third, "standby", &[&own], "only one left that could lead")?;
        self.done(third, "standby", &["--force"])?;
        self.status(third, 1, &["is in standby, but leads: no other node can"])
            .await?;
        self.done(first, "online", &[])?;
        self.led_by(first).await?;
        self.done(third, "online", &[&own])?;
        self.lab.start(second)?;
        self.lab.wait_caught_up(second, first).await
    }

    /// The client's machine takes the floating address, or gives it up.
    fn stranger(&self, takes: bool) -> Result<(), String> {
        let change = || -> Result<(), String> {
            let subnet = Subnet::new(IpAddr::V4(FLOATING), 24).map_err(words)?;
            let placed: Placed = addr::place(subnet, Some("eth0")).map_err(words)?;
            match takes {
                true => addr::add(&placed, None).map_err(words),
                false => addr::remove(&placed).map_err(words),
            }
        };
        self.lab.client.run(change).map_err(words)?
    }

    async fn conflict(&mut self) -> Result<(), String> {
        let leader = self.lab.wait_serving(None).await?;
        self.status(leader, 0, &["HEALTHY"]).await?;
        self.stranger(true)?;
        self.status(
            leader,
            1,
            &[
                "another machine answers for 10.77.0.100",
                "take 10.77.0.100 off it",
            ],
        )
        .await?;
        self.stranger(false)?;
        self.status(leader, 0, &["HEALTHY"]).await
    }

    async fn losses(&mut self) -> Result<(), String> {
        let leader = self.lab.wait_serving(None).await?;
        let others: Vec<usize> = (0..NODES).filter(|i| *i != leader).collect();
        self.lab.kill(&others[..1])?;
        let lost = format!("node {} has not been heard for", self.name(others[0]));
        self.status(leader, 1, &["DEGRADED", &lost, "is its machine up?"])
            .await?;
        self.status(
            others[0],
            1,
            &[
                "of this machine does not answer",
                "answers at 10.77.0.100:2049",
                "its process runs",
            ],
        )
        .await?;
        self.lab.kill(&[leader])?;
        self.status(others[1], 2, &["DOWN", "no majority", "sees 1 of 3 nodes"])
            .await?;
        self.status(leader, 2, &["does not answer at 10.77.0.100:2049"])
            .await?;
        self.stranger(true)?;
        self.status(
            others[1],
            2,
            &["answers for 10.77.0.100: perhaps node", "on no node, but"],
        )
        .await?;
        self.stranger(false)?;
        self.lab.start(leader)?;
        self.lab.wait_serving(None).await?;
        self.lab.start(others[0])?;
        self.status(others[0], 0, &["HEALTHY"]).await
    }
}
