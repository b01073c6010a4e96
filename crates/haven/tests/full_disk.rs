//! A file system that fills up: refused in time, nothing acknowledged lost, and it goes on when there is space.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use haven_client::{Client, ClientError};
use haven_proto::nfs3::{Createhow3, Fh3, Nfsstat3, Sattr3, StableHow};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Logged, free_port};

/// MiB of the file system: its log takes up to three pieces of 64 MiB.
const SIZE_MIB: u32 = 440;
const RESERVE_MIB: u32 = 128;
const FILE_BYTES: usize = 1 << 20;
/// How long space may take to come back.
const SOON: Duration = Duration::from_secs(60);

/// A small file system in a mount namespace of its own, held by a process.
struct SmallDisk {
    holder: Child,
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where that is impossible.
    fn new(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "mount -t tmpfs -o size={SIZE_MIB}m{options} tmpfs \"$0\" && echo mounted && exec cat"
        );
        let mut holder = Command::new("unshare")
            .args(["-m", "sh", "-c", &script])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        let mut out = BufReader::new(holder.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let mounted = line == "mounted\n";
        let disk = Self { holder, dir };
        if !mounted {
            eprintln!("SKIPPED: a full disk: no mount namespaces here (root, or user namespaces)");
            return None;
        }
        Some(disk)
    }

    /// A command that sees it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-m", "-t", &self.holder.id().to_string(), program])
            .env_remove("RUST_LOG")
            .stdin(Stdio::null());
        command
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn serve(&self, config: &Path) -> Logged {
        let mut command = self.command(env!("CARGO_BIN_EXE_haven"));
        command.args(["serve", "--config"]).arg(config);
        Logged::start(&mut command)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn connect(nfs: u16, mount: u16) -> Client {
    let options = haven_client::Options {
        mount_port: mount,
        request_timeout: Some(SOON),
        ..haven_client::Options::default()
    };
    Client::new(([127, 0, 0, 1], nfs).into(), options)
}

fn content(n: usize) -> Bytes {
    Bytes::from(vec![n as u8 ^ 0x5a; FILE_BYTES])
}

/// Makes a file of 1 MiB; what is acknowledged is what counts.
async fn put(client: &Client, root: &Fh3, n: usize) -> Result<Fh3, ClientError> {
    let how = Createhow3::Guarded(Sattr3::default());
    let made = client.create(root, format!("f{n}").as_str(), how).await?;
    let file = made.obj.unwrap();
    client
        .write(&file, 0, StableHow::FileSync, content(n))
        .await?;
    Ok(file)
}

/// Until there is no space; gives the files that were acknowledged, by number.
async fn fill(client: &Client, root: &Fh3, first: usize) -> Vec<(usize, Fh3)> {
    let mut acknowledged = Vec::new();
    for n in first.. {
        match put(client, root, n).await {
            Ok(file) => acknowledged.push((n, file)),
            Err(ClientError::Nfs(Nfsstat3::NoSpc)) => break,
            Err(other) => panic!("file {n}: {other}"),
        }
        assert!(acknowledged.len() < SIZE_MIB as usize, "more than there is");
    }
    acknowledged
}

async fn assert_all_there(client: &Client, files: &[(usize, Fh3)]) {
    for (n, file) in files {
        let read = client.read(file, 0, FILE_BYTES as u32).await.unwrap();
        assert!(read.data == content(*n), "f{n} differs");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_needs_space_and_loses_nothing() {
    let Some(disk) = SmallDisk::new("") else {
        return;
    };
    let config_dir = tempfile::tempdir().unwrap();
    let config = config_dir.path().join("haven.toml");
    let (nfs, mount) = (free_port(), free_port());
    let text = format!(
        "[node]\ndata = {:?}\nreserve_mib = {RESERVE_MIB}\ncheckpoint_mib = 16\n[service]\nlisten = \"127.0.0.1\"\n\
         nfs_port = {nfs}\nmount_port = {mount}\nsquash = \"none\"\n[[export]]\npath = \"/data\"\n",
        disk.data()
    );
    std::fs::write(&config, text).unwrap();
    let node = disk.serve(&config);
    let client = connect(nfs, mount);
    let root = client.mount("/data").await.unwrap();

    let mut files = fill(&client, &root, 0).await;
    assert!(files.len() > 20, "only {} files", files.len());
    assert_all_there(&client, &files).await;
    let (_, file) = files[0].clone();
    let grown = |size: u64| Sattr3 {
        size: Some(size),
        ..Sattr3::default()
    };
    let (mut n, mut refused) = (0, 0);
    while refused < 3 {
        n += 1;
        assert!(n < 20, "refused only {refused} times");
        let name = format!("other{n}");
        let result = match refused {
            0 => client
                .mkdir(&root, name.as_str(), Sattr3::default())
                .await
                .map(drop),
            1 => client.link(&file, &root, name.as_str()).await.map(drop),
            _ => client.setattr(&file, grown(n << 20), None).await.map(drop),
        };
        match result {
            Err(why) => {
                assert_eq!(why, ClientError::Nfs(Nfsstat3::NoSpc));
                refused += 1;
            }
            // The log was cut meanwhile, and there was some space again: until that is used up, too.
            Ok(()) => files.extend(fill(&client, &root, 1_000 * n as usize).await),
        }
    }
    client
        .setattr(&file, grown(FILE_BYTES as u64), None)
        .await
        .unwrap();
    client.rename(&root, "f0", &root, "renamed").await.unwrap();

    // Removing gives the space back by itself.
    let kept = files.split_off(files.len() / 2);
    for (n, _) in &files {
        let name = if *n == 0 {
            "renamed".to_owned()
        } else {
            format!("f{n}")
        };
        client.remove(&root, name.as_str()).await.unwrap();
    }
    let start = Instant::now();
    let (mut next, mut files) = (100_000, kept);
    loop {
        next += 1;
        match put(&client, &root, next).await {
            Ok(file) => break files.push((next, file)),
            Err(ClientError::Nfs(Nfsstat3::NoSpc)) if start.elapsed() < SOON => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(other) => panic!("{other}: {}", node.said()),
        }
    }
    files.extend(fill(&client, &root, next + 1).await);
    let said = node.said();
    assert!(
        said.contains("kept in reserve") && said.contains("there is space again"),
        "{said}"
    );

    // A restart on the full disk.
    node.kill();
    let _node = disk.serve(&config);
    let client = connect(nfs, mount);
    assert_all_there(&client, &files).await;
    client
        .remove(&root, format!("f{}", files[0].0).as_str())
        .await
        .unwrap();
}

/// Every file of more than 4 KiB is one of the local file system, which may have a number of them.
#[tokio::test]
async fn a_file_system_without_inodes_refuses_before_a_node_ends_of_it() {
    const INODES: usize = 2_000;
    let Some(disk) = SmallDisk::new(&format!(",nr_inodes={INODES}")) else {
        return;
    };
    let config_dir = tempfile::tempdir().unwrap();
    let config = config_dir.path().join("haven.toml");
    let (nfs, mount) = (free_port(), free_port());
    let text = format!(
        "[node]\ndata = {:?}\nreserve_mib = {RESERVE_MIB}\n[service]\nlisten = \"127.0.0.1\"\nnfs_port = {nfs}\n\
         mount_port = {mount}\nsquash = \"none\"\n[[export]]\npath = \"/data\"\n",
        disk.data()
    );
    std::fs::write(&config, text).unwrap();
    let node = disk.serve(&config);
    let client = connect(nfs, mount);
    let root = client.mount("/data").await.unwrap();
    let told = client.fsstat(&root).await.unwrap();
    assert!(told.ffiles < INODES as u64, "{told:?}");
    let mut made = 0;
    let refused = loop {
        let how = Createhow3::Guarded(Sattr3::default());
        let name = format!("f{made}");
        let file = match client.create(&root, name.as_str(), how).await {
            Ok(created) => created.obj.unwrap(),
            Err(why) => break why,
        };
        let data = Bytes::from(vec![1; 5_000]);
        let wrote = client.write(&file, 0, StableHow::FileSync, data).await;
        if let Err(why) = wrote {
            break why;
        }
        made += 1;
        assert!(made < INODES, "more than there are: {}", node.said());
    };
    assert_eq!(
        refused,
        ClientError::Nfs(Nfsstat3::NoSpc),
        "{}",
        node.said()
    );
    assert!(made > 100, "{made}");
    let told = client.fsstat(&root).await.unwrap();
    assert!(told.fbytes > told.tbytes / 4, "bytes are free: {told:?}");
    // It goes on with everything else.
    client.remove(&root, "f0").await.unwrap();
    node.until("more inodes");
}
