//! Clocks that jump: the times of files stay real, whoever leads.
//!
//! The nodes are on one machine, so its clock is right, and that of a node is wrong by what it is afflicted with.

use super::{JUMP_S, OPERATIONS, PATIENCE, POLL, Play, Probe, SKEW, words};
use crate::afflicted::{Affliction, afflict};
use haven::demo::lab::NODES;
use haven_cluster::clock::SLEW;
use haven_proto::nfs3::{Createhow3, Sattr3};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A file that was made: when the service says, and between what moments.
struct Made {
    /// Since 1970.
    at: Duration,
    asked: Instant,
    answered: Instant,
}

impl Made {
    /// How far its time is ahead of the machine's clock.
    fn ahead(&self) -> Result<Duration, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let asked = now.map_err(words)?.saturating_sub(self.asked.elapsed());
        Ok(self.at.saturating_sub(asked))
    }

    /// Its time is as long after that of another one as it was made after it.
    fn follows(&self, other: &Self, what: &str) -> Result<(), String> {
        let least = self.asked.saturating_duration_since(other.answered);
        let least = (least - least / u32::try_from(SLEW).unwrap_or(1)).saturating_sub(SKEW);
        let most = self.answered.saturating_duration_since(other.asked) + SKEW;
        match self.at.checked_sub(other.at) {
            Some(passed) if (least..=most).contains(&passed) => {
                println!("{what}: {} ms later by its time", passed.as_millis());
                Ok(())
            }
            passed => Err(format!(
                "{what}: {passed:?} later by its time, in truth {least:?} to {most:?}"
            )),
        }
    }
}

/// A play: each node that leads does so for this long.
pub(super) async fn play(play: Play, leads: Duration) -> Result<(), String> {
    let mut clocks = Clocks {
        probe: Probe::new(play.lab()),
        leads,
        number: 0,
        play,
    };
    clocks.one_clock().await?;
    clocks.most_clocks().await?;
    clocks.play.conclude().await
}

struct Clocks {
    probe: Probe,
    leads: Duration,
    number: u32,
    play: Play,
}

impl Clocks {
    /// The clock of one node is wrong: no matter who leads, the time is right.
    async fn one_clock(&mut self) -> Result<(), String> {
        let (leader, [follower, _]) = self.play.followers().await?;
        let term = self.play.term().await?;
        let mut last = self.make()?;
        for jump in [-JUMP_S, JUMP_S] {
            self.wrong(leader, jump).await?;
            self.play
                .unfelt(&format!("the leader's clock is wrong by {jump} s"))
                .await?;
            last = self
                .later(&last, "made under a leader whose clock is wrong")
                .await?;
        }
        let ahead = last.ahead()?;
        if ahead > SKEW {
            return Err(format!("the service's time is {ahead:?} ahead"));
        }
        for node in [leader, follower] {
            self.shown(node, leader, JUMP_S).await?;
        }
        if self.play.term().await? != term {
            return Err("a clock that jumped cost an election".into());
        }
        self.play.lab().request_move(leader).await?;
        self.play
            .succeeded(leader, "a leader whose clock is ahead")
            .await?;
        last = self.later(&last, "made under the next leader").await?;
        let ahead = last.ahead()?;
        match ahead > SKEW {
            true => Err(format!("the service's time is {ahead:?} ahead")),
            false => self.wrong(leader, 0).await,
        }
    }

    /// The clocks of most nodes are wrong, so that the time is, too. Then they are right again.
    async fn most_clocks(&mut self) -> Result<(), String> {
        for node in 0..NODES {
            self.wrong(node, JUMP_S).await?;
        }
        let start = Instant::now();
        let mut last = loop {
            let made = self.make()?;
            if made.ahead()? + SKEW > Duration::from_secs(JUMP_S.unsigned_abs()) {
                break made;
            }
            if start.elapsed() > PATIENCE {
                return Err("time does not follow all clocks".into());
            }
            tokio::time::sleep(POLL).await;
        };
        for node in 0..NODES {
            self.wrong(node, 0).await?;
        }
        for what in ["after the leap", "under the next leader"] {
            last = self.later(&last, what).await?;
            let leader = self.play.leader().await?;
            let ahead_ms = self.play.lab().status_of_busy(leader).await?.time_ahead_ms;
            if ahead_ms < (JUMP_S - 3_600) * 1_000 {
                return Err(format!("{what} it is said to be {ahead_ms} ms ahead"));
            }
            self.play.lab().request_move(leader).await?;
            self.play.succeeded(leader, what).await?;
        }
        self.later(&last, "under one more").await.map(drop)
    }

    async fn wrong(&self, node: usize, clock_s: i64) -> Result<(), String> {
        let wrong = Affliction {
            clock_s,
            ..Affliction::default()
        };
        afflict(self.play.lab(), node, &wrong).await
    }

    /// A node tells that a node's clock is so far ahead.
    async fn shown(&self, by: usize, of: usize, ahead_s: i64) -> Result<(), String> {
        let name = &self.play.lab().nodes[of].name;
        let start = Instant::now();
        loop {
            let report = self.play.lab().status_of_busy(by).await?;
            let clock = report.clocks.get(name);
            if clock.is_some_and(|clock| (clock.ahead_ms / 1_000 - ahead_s).abs() <= 1) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let by = &report.node;
                return Err(format!("node {by} says of {name}'s clock: {clock:?}"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Makes a file after the leader has led for a while, and another one.
    async fn later(&mut self, last: &Made, what: &str) -> Result<Made, String> {
        let first = self.make()?;
        first.follows(last, what)?;
        while first.answered.elapsed() < self.leads {
            self.play.clients.recorder.wait_fresh(OPERATIONS).await?;
        }
        let made = self.make()?;
        made.follows(&first, what)?;
        Ok(made)
    }

    fn make(&mut self) -> Result<Made, String> {
        self.number += 1;
        let name = format!("made {}", self.number);
        let asked = Instant::now();
        let made = self.probe.ask(async |client, root| {
            let how = Createhow3::Guarded(Sattr3::default());
            let made = client.create(&root, name.as_str(), how).await?;
            let file = match made.obj {
                Some(file) => file,
                None => client.lookup(&root, name.as_str()).await?.object,
            };
            Ok(client.getattr(&file).await?.mtime)
        })?;
        let at = made.map_err(words)?;
        Ok(Made {
            at: Duration::new(at.seconds.into(), at.nseconds),
            asked,
            answered: Instant::now(),
        })
    }
}
