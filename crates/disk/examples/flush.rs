//! What is cheaper when many small files were written: flushing each, or everything at once?
//!
//!     cargo run --release -p haven-disk --example flush -- <directory>

use haven_disk::{Disk, DiskFile, RealDisk};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

const FILE_BYTES: usize = 8192;
const COUNTS: [usize; 6] = [1, 4, 16, 64, 256, 4096];

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("which directory?")?;
    let disk = RealDisk::open(Path::new(&dir))?;
    println!("files  each ms  all ms  all, then each ms");
    for count in COUNTS {
        let each = timed(&disk, count, |files| {
            files.iter().try_for_each(|file| file.sync())
        })?;
        let all = timed(&disk, count, |_| disk.sync_all())?;
        let both = timed(&disk, count, |files| {
            disk.sync_all()?;
            files.iter().try_for_each(|file| file.sync())
        })?;
        println!("{count:5}  {each:7.2}  {all:6.2}  {both:17.2}");
    }
    Ok(())
}

/// Writes `count` new files and times `flush`, in milliseconds: the median of five times.
fn timed(
    disk: &RealDisk,
    count: usize,
    flush: impl Fn(&[Arc<dyn DiskFile>]) -> std::io::Result<()>,
) -> Result<f64, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..5 {
        disk.create_dir_all(Path::new("flush"))?;
        let mut files = Vec::new();
        for number in 0..count {
            let path = PathBuf::from(format!("flush/{number}"));
            let file = disk.open(&path, true)?;
            file.write_at(0, &[7; FILE_BYTES])?;
            files.push(file);
        }
        let start = Instant::now();
        flush(&files)?;
        times.push(start.elapsed().as_secs_f64() * 1000.0);
        disk.remove_dir_all(Path::new("flush"))?;
        disk.sync_all()?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
