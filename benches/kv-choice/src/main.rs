//! Compares redb, fjall and heed on the metadata workload of `haven-store`: one durable commit of
//! 20,000 changed rows per checkpoint into a base of 500,000 rows, point reads and short ordered
//! scans. The figures go into `docs/decisions/0002-metadata-engine.md`.
//!
//! Usage: `kv-choice [directory]`; the directory should be on the kind of disk that is to be judged.

mod engines;

use engines::{Engine, FjallEngine, HeedEngine, RedbEngine};
use std::path::Path;
use std::time::{Duration, Instant};

/// An error of whichever engine.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// A row to set.
pub type Row = (Vec<u8>, Vec<u8>);

const BASE_ROWS: u64 = 500_000;
const BASE_ROWS_PER_COMMIT: u64 = 50_000;
const CHECKPOINTS: u64 = 5;
const CHECKPOINT_ROWS: u64 = 20_000;
const READS: u64 = 200_000;
const SCANS: u64 = 20_000;
const SCAN_ROWS: usize = 20;

/// A small fixed generator: the same rows for every engine.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }
}

/// A key as the store makes them: table byte, number, and the start of a name (20 bytes).
fn key(number: u64) -> Vec<u8> {
    let mut key = vec![b'd'];
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(format!("f{:010}", number % 10_000_000_000).as_bytes());
    key
}

/// A value of 120 bytes that does not compress.
fn value(numbers: &mut Numbers) -> Vec<u8> {
    (0..15).flat_map(|_| numbers.next().to_be_bytes()).collect()
}

/// Half the rows overwrite random old ones, half are new ones at the end (new inode numbers).
fn checkpoint_rows(round: u64, numbers: &mut Numbers) -> Vec<Row> {
    (0..CHECKPOINT_ROWS)
        .map(|i| {
            let number = if i % 2 == 0 {
                numbers.next() % BASE_ROWS
            } else {
                BASE_ROWS + round * CHECKPOINT_ROWS / 2 + i / 2
            };
            (key(number), value(numbers))
        })
        .collect()
}

/// Bytes this process has sent towards the disk so far.
fn bytes_written() -> Outcome<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or("no write_bytes in /proc/self/io")?.parse()?)
}

/// Bytes allocated below a directory.
fn disk_usage(dir: &Path) -> Outcome<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        sum += if meta.is_dir() {
            disk_usage(&entry.path())?
        } else {
            meta.blocks() * 512
        };
    }
    Ok(sum)
}

fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

fn run(name: &str, dir: &Path, engine: &mut dyn Engine) -> Outcome<()> {
    let mut numbers = Numbers(1);
    for start in (0..BASE_ROWS).step_by(BASE_ROWS_PER_COMMIT as usize) {
        let end = start + BASE_ROWS_PER_COMMIT;
        let rows: Vec<Row> = (start..end)
            .map(|n| (key(n), value(&mut numbers)))
            .collect();
        engine.commit(&rows)?;
    }
    let base_bytes = disk_usage(dir)?;

    let written_before = bytes_written()?;
    let mut times = Vec::new();
    for round in 0..CHECKPOINTS {
        let mut rows = checkpoint_rows(round, &mut numbers);
        rows.sort();
        let start = Instant::now();
        engine.commit(&rows)?;
        times.push(start.elapsed());
    }
    times.sort();
    let settle = Instant::now();
    engine.settle()?;
    let settle = settle.elapsed();
    let written = (bytes_written()? - written_before) / CHECKPOINTS;

    let start = Instant::now();
    for _ in 0..READS {
        let number = numbers.next() % BASE_ROWS;
        let found = engine.get(&key(number))?.ok_or("a row is missing")?;
        assert_eq!(found, 120, "value length");
    }
    let reads = per_second(READS, start.elapsed());

    let start = Instant::now();
    for _ in 0..SCANS {
        let number = numbers.next() % (BASE_ROWS - SCAN_ROWS as u64);
        assert_eq!(
            engine.scan(&key(number), SCAN_ROWS)?,
            SCAN_ROWS,
            "scan length"
        );
    }
    let scans = per_second(SCANS, start.elapsed());

    println!(
        "| {name} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} |",
        times[times.len() / 2].as_secs_f64() * 1000.0,
        times[times.len() - 1].as_secs_f64() * 1000.0,
        settle.as_secs_f64() * 1000.0,
        written as f64 / 1e6,
        base_bytes as f64 / 1e6,
        disk_usage(dir)? as f64 / 1e6,
        reads / 1000.0,
        scans / 1000.0,
    );
    Ok(())
}

fn main() -> Outcome<()> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| "target".into());
    println!(
        "| engine | checkpoint ms (median) | (worst) | settle ms | MB written per checkpoint | base MB | end MB | k reads/s | k scans/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for name in ["redb", "redb, quick repair", "fjall", "heed (LMDB)"] {
        let dir = tempfile::tempdir_in(&parent)?;
        let mut engine: Box<dyn Engine> = match name {
            "redb" => Box::new(RedbEngine::open(dir.path(), false)?),
            "redb, quick repair" => Box::new(RedbEngine::open(dir.path(), true)?),
            "fjall" => Box::new(FjallEngine::open(dir.path())?),
            _ => Box::new(HeedEngine::open(dir.path())?),
        };
        run(name, dir.path(), engine.as_mut())?;
    }
    Ok(())
}
