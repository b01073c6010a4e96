//! Faults of machines, and for how long no majority of them was well.

use super::How;
use crate::afflicted::{Affliction, Hang, afflict};
use haven::demo::lab::{Lab, NODES};
use std::time::{Duration, Instant};

/// How long a node may take to be well again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between looks.
const POLL: Duration = Duration::from_millis(5);

/// The laboratory's machines during a case.
pub struct Machines<'a> {
    pub lab: &'a mut Lab,
    /// Machines that are not well.
    ill: [bool; NODES],
    /// Since when no majority is well.
    helpless_since: Option<Instant>,
    helpless: Duration,
}

impl<'a> Machines<'a> {
    /// All are well.
    pub fn new(lab: &'a mut Lab) -> Self {
        Self {
            lab,
            ill: [false; NODES],
            helpless_since: None,
            helpless: Duration::ZERO,
        }
    }

    fn note(&mut self, node: usize, ill: bool) {
        self.ill[node] = ill;
        let well = self.ill.iter().filter(|ill| !**ill).count();
        let now = Instant::now();
        if well * 2 > NODES {
            if let Some(since) = self.helpless_since.take() {
                self.helpless += now - since;
            }
        } else {
            self.helpless_since.get_or_insert(now);
        }
    }

    pub async fn begin(&mut self, how: How, victims: &[usize]) -> Result<(), String> {
        victims.iter().for_each(|node| self.note(*node, true));
        match how {
            How::Killed => return self.lab.kill(victims),
            How::Ended => return self.lab.terminate(victims),
            How::SwitchDead => return self.lab.switch(false),
            _ => {}
        }
        for node in victims {
            self.turn(how, *node, true).await?;
        }
        Ok(())
    }

    /// What was begun is over. A process that was ended is started, and counts as well when it answers.
    pub async fn end(&mut self, how: How, victims: &[usize]) -> Result<(), String> {
        match how {
            How::Killed => {}
            How::Ended => {
                for node in victims {
                    self.lab.wait_end(*node).await?;
                }
            }
            How::SwitchDead => self.lab.switch(true)?,
            _ => {
                for node in victims {
                    self.turn(how, *node, false).await?;
                }
            }
        }
        let may_have_ended = matches!(how, How::Killed | How::Ended | How::DiskStill);
        for node in victims.iter().filter(|_| may_have_ended) {
            self.lab.start_if_ended(*node)?;
        }
        for node in victims {
            if may_have_ended {
                self.answers(*node).await?;
            }
            self.note(*node, false);
        }
        Ok(())
    }

    async fn turn(&self, how: How, node: usize, begin: bool) -> Result<(), String> {
        match how {
            How::Stopped => self.lab.freeze(node, begin),
            How::DiskStill => {
                let affliction = Affliction {
                    hang: begin.then_some(Hang::Disk),
                    ..Affliction::default()
                };
                // It may have ended because of it.
                let told = afflict(self.lab, node, &affliction).await;
                if begin { told } else { Ok(()) }
            }
            How::PortDown => self.lab.port(node, !begin),
            How::InterfaceDown => self.lab.interface(node, !begin),
            How::Mute => self.lab.one_way(node, true, begin),
            How::Deaf => self.lab.one_way(node, false, begin),
            How::SwitchDead | How::Killed | How::Ended => Ok(()),
        }
    }

    /// Waits until a process answers. One whose disk stood still may end a moment after it.
    async fn answers(&mut self, node: usize) -> Result<(), String> {
        let start = Instant::now();
        while self.lab.status(node).await.is_err() {
            if start.elapsed() > PATIENCE {
                return Err(format!(
                    "node {} does not answer",
                    self.lab.nodes[node].name
                ));
            }
            self.lab.start_if_ended(node)?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until all have caught up with whoever serves; says for how long no majority was well.
    pub async fn well(mut self) -> Result<Duration, String> {
        let start = Instant::now();
        loop {
            let leader = self.lab.wait_serving(None).await?;
            let mut all = true;
            for node in (0..NODES).filter(|node| *node != leader) {
                // A process may end late of what it went through.
                self.answers(node).await?;
                all &= self.lab.wait_caught_up(node, leader).await.is_ok();
            }
            if all {
                return Ok(self.helpless);
            }
            if start.elapsed() > PATIENCE {
                return Err("the nodes do not catch up".into());
            }
        }
    }
}
