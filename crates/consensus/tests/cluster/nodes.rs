//! Nodes on loopback, in one process.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use haven_consensus::Applicant;
use haven_consensus::CheckpointPolicy;
use haven_consensus::Consensus;
use haven_consensus::ConsensusOptions;
use haven_consensus::Leadership;
use haven_consensus::MembershipError;
use haven_consensus::PROTOCOL_VERSION;
use haven_consensus::ProposeError;
use haven_consensus::Replicated;
use haven_consensus::Security;
use haven_consensus::StartError;
use haven_consensus::Timing;
use haven_consensus::TransferError;
use haven_consensus::lacking;
use haven_consensus::rejoin;
use haven_disk::Disk;
use haven_disk::RealDisk;
use haven_disk::testing::DiskOp;
use haven_disk::testing::FaultyDisk;
use haven_log::Log;
use haven_log::LogOptions;
use haven_log::Slot;
use haven_pki::Authority;
use haven_pki::Identity;
use haven_pki::KeyId;
use haven_pki::NodeKey;
use haven_pki::SecretHash;
use tempfile::TempDir;

use crate::machine::Gate;
use crate::machine::Nature;
use crate::machine::TestDisk;
use crate::machine::TestMachine;

/// A test that waits longer for something has failed.
const PATIENCE: Duration = Duration::from_secs(15);

pub async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(value) => value,
        Err(_) => panic!("never happened: {what}"),
    }
}

/// Polls until `done` holds.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    soon(what, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Three times the usual, so that a machine that does much else besides elects nobody: no test here asks how long
/// something takes.
pub fn unhurried() -> Timing {
    let usual = Timing::default();
    Timing {
        heartbeat: usual.heartbeat * 3,
        election_min: usual.election_min * 3,
        lease: usual.lease * 3,
    }
}

pub struct Node {
    pub id: u64,
    pub consensus: Consensus<usize>,
    pub machine: Arc<TestMachine>,
    pub log: Log,
}

/// The voters of a cluster, running or not.
pub struct Cluster {
    pub peers: BTreeMap<u64, SocketAddr>,
    pub identities: BTreeMap<u64, Identity>,
    pub version: u32,
    pub checkpoints: CheckpointPolicy,
    pub log_options: LogOptions,
    /// What the machines are like; witnesses are so besides.
    pub nature: Nature,
    pub witnesses: Vec<u64>,
    dirs: BTreeMap<u64, TempDir>,
    disks: BTreeMap<u64, TestDisk>,
    /// Hold up what writes to a node's log, or flushes it.
    pub standstills: BTreeMap<u64, Arc<Gate>>,
    pub nodes: BTreeMap<u64, Node>,
}

impl Cluster {
    /// A cluster whose nodes are not started. Each gets a loopback address of its own, so that no
    /// other socket of this machine is in the way.
    pub fn of(count: u64) -> Self {
        let peers: BTreeMap<u64, SocketAddr> =
            (1..=count).map(|id| (id, fresh_address())).collect();
        let identities = Identity::found(count, |_| Ok(Vec::new())).unwrap();
        let identities = identities
            .into_iter()
            .map(|own| (own.node(), own))
            .collect();
        let dirs = peers
            .keys()
            .map(|id| (*id, tempfile::tempdir().unwrap()))
            .collect();
        let disks = peers.keys().map(|id| (*id, TestDisk::default())).collect();
        let checkpoints = CheckpointPolicy::default();
        Self {
            peers,
            identities,
            version: PROTOCOL_VERSION,
            checkpoints,
            log_options: LogOptions::default(),
            nature: Nature::default(),
            witnesses: Vec::new(),
            dirs,
            disks,
            standstills: BTreeMap::new(),
            nodes: BTreeMap::new(),
        }
    }

    pub async fn running(count: u64) -> Self {
        let mut cluster = Self::of(count);
        for id in 1..=count {
            cluster.start(id).await;
        }
        cluster
    }

    pub fn options(&self, id: u64) -> ConsensusOptions {
        let own = &self.identities[&id];
        let founders: BTreeMap<u64, (String, KeyId)> = own
            .founders()
            .iter()
            .map(|founder| (founder.id, (name(founder.id), founder.key)))
            .collect();
        let mut peers = self.peers.clone();
        peers.retain(|id, _| founders.contains_key(id));
        ConsensusOptions {
            node_id: id,
            cluster: "test".into(),
            peers,
            listen: self.peers[&id],
            security: Some(Security {
                tls: own.tls().unwrap(),
                name: name(id),
                founders,
                tokens: own.issued().to_vec(),
                version: self.version,
            }),
            timing: unhurried(),
            checkpoints: self.checkpoints,
            witness: self.witnesses.contains(&id),
        }
    }

    pub async fn start(&mut self, id: u64) {
        let options = self.options(id);
        self.start_with(id, options).await.unwrap();
    }

    pub async fn start_with(
        &mut self,
        id: u64,
        options: ConsensusOptions,
    ) -> Result<(), StartError> {
        let disk = Arc::new(RealDisk::open(self.dirs[&id].path()).unwrap());
        let gate = self.standstills.entry(id).or_default().clone();
        let disk = Arc::new(FaultyDisk::new(disk, move |op, _| {
            if op == DiskOp::Write || op.is_flush() {
                gate.pass();
            }
            Ok(())
        }));
        let log = Log::open(disk, Path::new("log"), self.log_options.clone()).unwrap();
        let nature = Nature {
            witness: options.witness,
            ..self.nature.clone()
        };
        let machine = TestMachine::open(&self.disks[&id], nature);
        let consensus = Consensus::start(options, log.clone(), machine.clone()).await?;
        self.nodes.insert(
            id,
            Node {
                id,
                consensus,
                machine,
                log,
            },
        );
        Ok(())
    }

    /// A process on a copy of a stopped node's data, in `dir`, that listens at `listen`.
    pub async fn copy(&self, id: u64, listen: SocketAddr, dir: &Path) -> Node {
        std::fs::create_dir(dir.join("log")).unwrap();
        for file in std::fs::read_dir(self.dirs[&id].path().join("log")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), dir.join("log").join(file.file_name())).unwrap();
        }
        let disk = Arc::new(RealDisk::open(dir).unwrap());
        let log = Log::open(disk, Path::new("log"), self.log_options.clone()).unwrap();
        let state = Arc::new(parking_lot::Mutex::new(self.disks[&id].lock().clone()));
        let machine = TestMachine::open(&state, self.nature.clone());
        let mut options = self.options(id);
        options.listen = listen;
        let consensus = Consensus::start(options, log.clone(), machine.clone()).await;
        Node {
            id,
            consensus: consensus.unwrap(),
            machine,
            log,
        }
    }

    /// Has node `at` let a new one in, which is not started. Gives its number.
    pub async fn admit(&mut self, at: u64, secret: u8) -> Result<u64, MembershipError> {
        let next = self.peers.keys().last().unwrap() + 1;
        let applicant = self.applicant(next);
        let id = self.admit_key(at, secret, &applicant).await?;
        self.take_in(id, applicant.1, applicant.0.address);
        Ok(id)
    }

    /// A machine that wants to become node `id`.
    pub fn applicant(&self, id: u64) -> (Applicant, NodeKey) {
        let key = NodeKey::create().unwrap();
        let applicant = Applicant {
            name: name(id),
            address: fresh_address(),
            key: key.public().unwrap().id(),
        };
        (applicant, key)
    }

    pub async fn admit_key(
        &self,
        at: u64,
        secret: u8,
        applicant: &(Applicant, NodeKey),
    ) -> Result<u64, MembershipError> {
        let secret = SecretHash::of(&[secret]);
        let consensus = &self.node(at).consensus;
        let admitting = consensus.admit(secret, applicant.0.clone(), NOW);
        soon("an answer to an applicant", admitting).await
    }

    pub fn take_in(&mut self, id: u64, key: NodeKey, address: SocketAddr) {
        let first = &self.identities[&1];
        let authority = first.authority();
        let certificate = authority.issue(id, &key.public().unwrap()).unwrap();
        let authority = Authority::of(
            authority.cluster().to_owned(),
            NodeKey::from_pem(&authority.key().to_pem()).unwrap(),
            authority.certificate().clone(),
        );
        let identity = Identity::joined(authority, id, key, certificate).unwrap();
        self.peers.insert(id, address);
        self.identities.insert(id, identity);
        self.dirs.insert(id, tempfile::tempdir().unwrap());
        self.disks.insert(id, TestDisk::default());
    }

    /// Lets a token count, at node `at`.
    pub async fn token(&self, at: u64, secret: u8) {
        let hash = SecretHash::of(&[secret]);
        let adding = self.node(at).consensus.add_token(hash, NOW + 60, NOW);
        soon("a token", adding).await.unwrap();
    }

    /// Waits until exactly these nodes vote, as `at` sees it.
    pub async fn voters(&self, at: u64, want: &[u64]) {
        let consensus = self.node(at).consensus.clone();
        let what = format!("node {at} sees the voters {want:?}");
        until(&what, || {
            let members = consensus.members();
            members.iter().all(|m| m.voter) && members.iter().map(|m| m.id).eq(want.iter().copied())
        })
        .await;
    }

    /// Stops a node; what its machine did not checkpoint is lost.
    pub async fn stop(&mut self, id: u64) {
        let node = self.nodes.remove(&id).unwrap();
        soon("shutdown", node.consensus.shutdown()).await;
    }

    /// Takes a stopped node's log away, and its machine with it unless that is kept; puts a log in its place
    /// that knows what may be forgotten.
    pub fn lose_log(&mut self, id: u64, keep_machine: bool) {
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(self.dirs[&id].path()).unwrap());
        let found = haven_log::check(&*disk, Path::new("log"), &mut |_| {}, &mut |_| {}).unwrap();
        let forgot = haven_consensus::check::read_vote_slot(&found.vote.unwrap()).unwrap();
        disk.remove_dir_all(Path::new("log")).unwrap();
        if !keep_machine {
            self.disks.insert(id, TestDisk::default());
        }
        let machine = TestMachine::open(&self.disks[&id], self.nature.clone());
        let position = machine.position().unwrap();
        let log = Log::open(disk, Path::new("log"), LogOptions::default()).unwrap();
        rejoin::prepare(&log, id, forgot, position.as_deref()).unwrap();
    }

    /// Takes the last `lost` records of a stopped node's log away and leaves the note that they were committed; the last
    /// record that it had.
    pub fn lose_end(&self, id: u64, lost: u64) -> u64 {
        let disk = Arc::new(RealDisk::open(self.dirs[&id].path()).unwrap());
        let log = Log::open(disk, Path::new("log"), self.log_options.clone()).unwrap();
        let last = log.last_index().unwrap();
        let record = log.read(last..last + 1, 1).unwrap().pop().unwrap();
        let place = haven_consensus::check::read_record(last, &record.head, record.body).unwrap();
        let mut slot = vec![1];
        slot.extend(place.place.term.to_le_bytes());
        slot.extend(place.place.applied_index().to_le_bytes());
        log.save_slot(Slot::Committed, &slot, true).unwrap();
        log.truncate_after(last - lost).unwrap();
        last
    }

    /// An operator gives up what a stopped node lacks.
    pub fn give_up(&self, id: u64) -> Option<(u64, u64)> {
        let disk = Arc::new(RealDisk::open(self.dirs[&id].path()).unwrap());
        let log = Log::open(disk, Path::new("log"), self.log_options.clone()).unwrap();
        let machine = TestMachine::open(&self.disks[&id], self.nature.clone());
        let position = machine.position().unwrap();
        lacking::give_up(&log, position.as_deref()).unwrap()
    }

    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    pub fn checkpointed(&self, id: u64) -> usize {
        self.disks[&id].lock().applied.len()
    }

    /// Waits until one of `among` leads and can serve.
    pub async fn leader(&self, among: &[u64]) -> u64 {
        let waits = among.iter().map(|id| {
            let mut seen = self.node(*id).consensus.leadership();
            Box::pin(async move {
                seen.wait_for(|l| l.is_leader).await.unwrap();
                *id
            })
        });
        let id = soon("a leader", futures_util::future::select_all(waits))
            .await
            .0;
        soon("a barrier", self.node(id).consensus.barrier())
            .await
            .unwrap();
        id
    }

    pub fn all(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    pub async fn leadership(
        &self,
        id: u64,
        what: &str,
        f: impl FnMut(&Leadership) -> bool,
    ) -> Leadership {
        let mut seen = self.node(id).consensus.leadership();
        *soon(what, seen.wait_for(f)).await.unwrap()
    }

    /// Hands leadership of `from` over, as soon as a follower is ready for it.
    pub async fn hand_over(&self, from: u64, to: Option<u64>) -> u64 {
        let consensus = &self.node(from).consensus;
        let handed = async {
            loop {
                match consensus.transfer(to).await {
                    Err(TransferError::NoneReady) => tokio::task::yield_now().await,
                    moved => return moved.unwrap(),
                }
            }
        };
        soon("leadership is handed over", handed).await
    }

    pub async fn propose(&self, id: u64, text: &str) -> Result<usize, ProposeError> {
        let entry = Bytes::copy_from_slice(text.as_bytes());
        soon("a proposal", self.node(id).consensus.propose(entry)).await
    }

    /// Waits until all running nodes have applied these entries, and nothing else.
    pub async fn all_hold(&self, texts: &[String]) {
        let holding = self.nodes.values();
        for node in holding.filter(|node| !self.witnesses.contains(&node.id)) {
            let what = format!("node {} holds {} entries", node.id, texts.len());
            until(&what, || node.machine.texts() == texts).await;
        }
    }
}

/// An address that no other socket uses.
pub fn fresh_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [high, low] = ((std::process::id() % 60_000) as u16).to_be_bytes();
    let last = NEXT.fetch_add(1, Ordering::Relaxed);
    let ip = Ipv4Addr::new(127, high.wrapping_add(1).max(1), low, last);
    SocketAddr::from((ip, 7100))
}

/// The clock of the cluster, in seconds.
pub const NOW: u64 = 1_000_000;

fn name(id: u64) -> String {
    format!("node-{id}")
}

pub fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| format!("entry {i}")).collect()
}
