//! What happens to the cluster, chosen by the seed.

use crate::afflicted::{Affliction, afflict};
use haven::demo::lab::{Lab, NODES};
use haven::demo::random::Random;
use std::time::Duration;

/// Between two faults, at least.
const CALM_MS: u64 = 150;
/// And up to so much more.
const CALM_JITTER_MS: u64 = 350;
/// How long a fault lasts at most: from shorter than a lease to several of them.
const FAULT_MS_MAX: u64 = 1_500;
/// A freeze lasts at least so long: longer than the lease (300 ms).
const FREEZE_MS_MIN: u64 = 400;

/// A fault of one node, `.0` being the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Killed,
    Frozen,
    CutOff,
    /// What it sends to the other nodes vanishes.
    Mute,
    /// What the other nodes send to it vanishes.
    Deaf,
    Moved,
    /// All are cut off from all.
    Scattered,
}

const FAULTS: [Fault; 8] = [
    Fault::Killed,
    Fault::Killed,
    Fault::Frozen,
    Fault::CutOff,
    Fault::Mute,
    Fault::Deaf,
    Fault::Moved,
    Fault::Scattered,
];

/// The faults of a seed, one after another.
pub struct Schedule {
    lab: Lab,
    random: Random,
}

impl Schedule {
    pub fn new(lab: Lab, random: Random) -> Self {
        Self { lab, random }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next() % bound
    }

    /// One fault, from its beginning until it is mended; gives what it was.
    pub async fn strike(&mut self) -> Result<String, String> {
        let calm = CALM_MS + self.below(CALM_JITTER_MS);
        tokio::time::sleep(Duration::from_millis(calm)).await;
        let leader = self.lab.wait_serving(None).await?;
        let fault = FAULTS[self.below(FAULTS.len() as u64) as usize];
        // Mostly whoever leads.
        let node = match self.below(4) {
            0 => self.below(NODES as u64) as usize,
            _ => leader,
        };
        let mut lasts = self.below(FAULT_MS_MAX);
        if fault == Fault::Frozen {
            lasts = lasts.max(FREEZE_MS_MIN);
        }
        self.begin(fault, node).await?;
        tokio::time::sleep(Duration::from_millis(lasts)).await;
        self.end(fault, node).await?;
        let name = &self.lab.nodes[node].name;
        let next = self.lab.wait_serving(None).await?;
        let (leader, next) = (&self.lab.nodes[leader].name, &self.lab.nodes[next].name);
        Ok(format!(
            "{leader} led, {name} {fault:?} for {lasts} ms, {next} leads"
        ))
    }

    async fn begin(&mut self, fault: Fault, node: usize) -> Result<(), String> {
        match fault {
            Fault::Killed => self.lab.kill(&[node]),
            Fault::Frozen => self.lab.freeze(node, true),
            Fault::CutOff => self.lab.cut(node, true),
            Fault::Mute | Fault::Deaf => self.lab.one_way(node, fault == Fault::Mute, true),
            // It does not go if another was elected just now.
            Fault::Moved => self.lab.request_move(node).await.map(drop).or(Ok(())),
            Fault::Scattered => (0..NODES).try_for_each(|node| self.lab.cut(node, true)),
        }
    }

    async fn end(&mut self, fault: Fault, node: usize) -> Result<(), String> {
        match fault {
            Fault::Killed => {
                // The next kill may be a power loss, or none.
                let volatile = self.below(2) == 0;
                let affliction = Affliction {
                    volatile,
                    ..Affliction::default()
                };
                afflict(&self.lab, node, &affliction).await?;
                self.lab.start(node)
            }
            Fault::Frozen => self.lab.freeze(node, false),
            Fault::CutOff => self.lab.cut(node, false),
            Fault::Mute | Fault::Deaf => self.lab.one_way(node, fault == Fault::Mute, false),
            Fault::Moved => Ok(()),
            Fault::Scattered => (0..NODES).try_for_each(|node| self.lab.cut(node, false)),
        }
    }

    /// Waits until all nodes are well, and gives the laboratory back.
    pub async fn calm_down(self) -> Result<Lab, String> {
        loop {
            let leader = self.lab.wait_serving(None).await?;
            let mut settled = true;
            for node in (0..NODES).filter(|node| *node != leader) {
                settled &= self.lab.wait_caught_up(node, leader).await.is_ok();
            }
            if settled {
                return Ok(self.lab);
            }
        }
    }
}
