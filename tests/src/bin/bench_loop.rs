//! The load of `cargo xtask bench`: loops of one kind of file operation each, which time themselves, so that what it takes
//! to start and to attach is not measured.
//!
//! `bench_loop DIR NAME=ITERATIONS...` prints for each loop `bench_loop NAME ITERATIONS NANOSECONDS`, where the last is the
//! time of one iteration: the median of a hundred parts of the loop, so that a neighbour's burst does not count.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the numbers are what it is for")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

const PARTS: u64 = 101;
const PAGE: usize = 4096;
const FILE_PAGES: u64 = 16_384;
/// Of the paced loop: a million operations a second; so many between two looks at the clock, which costs as well.
const PACE_NS: u64 = 1000;
const PACE_LOOK: u64 = 32;

/// `O_DIRECT`, which std does not name.
#[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
const O_DIRECT: i32 = 0o200_000;
#[cfg(not(any(target_arch = "aarch64", target_arch = "arm")))]
const O_DIRECT: i32 = 0o40_000;

/// What a failing read is to say, the same on every architecture.
const EIO: i32 = 5;

/// What O_DIRECT asks of a buffer.
#[repr(align(4096))]
struct Aligned([u8; PAGE]);

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().context("usage: bench_loop DIR NAME=ITERATIONS...")?);
    for argument in arguments {
        let (name, iterations) = argument.split_once('=').context("a loop is given as NAME=ITERATIONS")?;
        let iterations = iterations.parse().with_context(|| format!("iterations of {name}"))?;
        if name == "prepare" {
            prepare(&directory)?;
            continue;
        }
        let ns = run(name, iterations, &directory).with_context(|| format!("loop {name}"))?;
        println!("bench_loop {name} {iterations} {ns:.2}");
    }
    Ok(())
}

fn run(name: &str, iterations: u64, directory: &Path) -> Result<f64> {
    match name {
        "pread" => pread(iterations, directory),
        "paced" => paced(iterations, directory),
        "randread" => randread(iterations, directory),
        "direct" => direct(iterations, directory),
        "create" => create(iterations, directory),
        "open" => open(iterations, directory),
        "getppid" => getppid(iterations),
        "stat" => stat(iterations, directory),
        "rewrite" => rewrite(iterations, directory),
        "lifetime" => lifetime(iterations, directory),
        "failing" => failing(iterations, directory),
        other => bail!("there is no loop `{other}`"),
    }
}

fn data(directory: &Path) -> PathBuf {
    directory.join("data")
}

/// The file that the loops read, on disk and in the page cache.
fn prepare(directory: &Path) -> Result<()> {
    let mut file = File::create(data(directory))?;
    for page in 0..FILE_PAGES {
        file.write_all(&[page.to_le_bytes()[0]; PAGE])?;
    }
    file.sync_all()?;
    // An O_DIRECT read would have to write back and drop the pages of the cached loops.
    fs::copy(data(directory), directory.join("data.direct"))?;
    File::open(directory.join("data.direct"))?.sync_all()?;
    fs::read(data(directory))?;
    Ok(())
}

/// The median time of an iteration over the parts of the loop.
fn timed(iterations: u64, mut each: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let parts = PARTS.min(iterations.max(1));
    let per_part = iterations.div_ceil(parts);
    let mut times = Vec::new();
    let mut done = 0;
    while done < iterations {
        let until = (done + per_part).min(iterations);
        let begin = Instant::now();
        for iteration in done..until {
            each(iteration)?;
        }
        times.push(float(nanoseconds(begin)) / float(until - done));
        done = until;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a few seconds")]
fn float(value: u64) -> f64 {
    value as f64
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// One byte of a cached file: the cheapest operation there is, all of it system call.
fn pread(iterations: u64, directory: &Path) -> Result<f64> {
    let file = File::open(data(directory))?;
    let mut byte = [0];
    timed(iterations, |_| Ok(file.read_exact_at(&mut byte, 0)?))
}

/// The same, a million times a second or as fast as it goes; what it says is the mean.
fn paced(iterations: u64, directory: &Path) -> Result<f64> {
    let file = File::open(data(directory))?;
    let mut byte = [0];
    let begin = Instant::now();
    for iteration in 0..iterations {
        while iteration % PACE_LOOK == 0 && nanoseconds(begin) < iteration * PACE_NS {
            std::hint::spin_loop();
        }
        file.read_exact_at(&mut byte, 0)?;
    }
    Ok(float(nanoseconds(begin)) / float(iterations))
}

fn randread(iterations: u64, directory: &Path) -> Result<f64> {
    read_pages(iterations, &File::open(data(directory))?)
}

/// Queue depth 1: the next one is asked for when this one is there.
fn direct(iterations: u64, directory: &Path) -> Result<f64> {
    let path = directory.join("data.direct");
    let file = OpenOptions::new().read(true).custom_flags(O_DIRECT).open(path).context("open with O_DIRECT")?;
    read_pages(iterations, &file)
}

fn read_pages(iterations: u64, file: &File) -> Result<f64> {
    let mut buffer = Aligned([0; PAGE]);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    timed(iterations, |_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        Ok(file.read_exact_at(&mut buffer.0, random % FILE_PAGES * PAGE as u64)?)
    })
}

/// Create (and close), stat, unlink.
fn create(iterations: u64, directory: &Path) -> Result<f64> {
    let path = directory.join("created");
    timed(iterations, |_| {
        drop(File::create(&path)?);
        fs::metadata(&path)?;
        Ok(fs::remove_file(&path)?)
    })
}

/// Open, read, close.
fn open(iterations: u64, directory: &Path) -> Result<f64> {
    let path = data(directory);
    let mut byte = [0];
    timed(iterations, |_| Ok(File::open(&path)?.read_exact_at(&mut byte, 0)?))
}

fn stat(iterations: u64, directory: &Path) -> Result<f64> {
    let path = data(directory);
    timed(iterations, |_| Ok(fs::metadata(&path).map(drop)?))
}

/// A page of one open file, read and written back.
fn rewrite(iterations: u64, directory: &Path) -> Result<f64> {
    let file = OpenOptions::new().read(true).write(true).open(data(directory))?;
    let mut page = [0; PAGE];
    timed(iterations, |iteration| {
        let offset = iteration % FILE_PAGES * PAGE as u64;
        file.read_exact_at(&mut page, offset)?;
        Ok(file.write_all_at(&page, offset)?)
    })
}

/// Create, write (and close), stat, unlink.
fn lifetime(iterations: u64, directory: &Path) -> Result<f64> {
    let path = directory.join("created");
    timed(iterations, |_| {
        File::create(&path)?.write_all(&[1])?;
        fs::metadata(&path)?;
        Ok(fs::remove_file(&path)?)
    })
}

/// One byte of a file whose reads may fail with EIO; how many did is said in a line of its own.
fn failing(iterations: u64, directory: &Path) -> Result<f64> {
    let file = File::open(data(directory))?;
    let mut byte = [0];
    let mut failed = 0_u64;
    let ns = timed(iterations, |_| match file.read_at(&mut byte, 0) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(EIO) => {
            failed += 1;
            Ok(())
        }
        Err(other) => Err(other.into()),
    })?;
    println!("bench_loop_failed {failed}");
    Ok(ns)
}

/// A system call that is no file operation.
fn getppid(iterations: u64) -> Result<f64> {
    timed(iterations, |_| {
        std::hint::black_box(std::os::unix::process::parent_id());
        Ok(())
    })
}
