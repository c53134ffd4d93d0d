//! `lanyard-vectors`: a busy program whose vector registers must be its own.

use std::process::ExitCode;

#[cfg(target_arch = "x86_64")]
mod program {
    use std::fs;
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Context, Result, anyhow};
    use clap::Parser;
    use tests::processor;
    use tests::vectors::{Width, sum_and_check};

    /// Threads of one program: the kernel switches between them in another way than between programs.
    const THREADS: u32 = 2;

    /// Keeps sums in the widest vector registers there are, in two threads, and checks them.
    ///
    /// Prints a line for each thread: how often its sums were right, and how often it was interrupted for another thread.
    #[derive(Debug, Parser)]
    #[command(name = "lanyard-vectors")]
    pub struct Arguments {
        /// Where the numbers start: no two programs side by side have the same
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..1000))]
        seed: u32,

        /// The processor that all threads share
        #[arg(long)]
        processor: usize,

        /// For how long
        #[arg(long)]
        seconds: u64,
    }

    /// Runs the threads to their end.
    ///
    /// # Errors
    /// A register was not kept.
    pub fn run(arguments: &Arguments) -> Result<()> {
        processor::keep_on(0, arguments.processor)?;
        let until = Instant::now() + Duration::from_secs(arguments.seconds);
        let width = Width::widest();
        let start = |number| {
            let seed = arguments.seed * 10 + number * 2;
            thread::spawn(move || sum_until(width, seed, until))
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    }

    fn sum_until(width: Width, seed: u32, until: Instant) -> Result<()> {
        let mut right: u64 = 0;
        while Instant::now() < until {
            sum_and_check(width, seed).with_context(|| format!("after {right} right sums"))?;
            right += 1;
        }
        println!("{width}: {right} times right, {} times interrupted", interruptions()?);
        Ok(())
    }

    /// How often the kernel has taken the processor away from this thread for another one.
    fn interruptions() -> Result<u64> {
        let status = fs::read_to_string("/proc/thread-self/status")?;
        let number = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
        Ok(number.context("no number of switches in /proc/thread-self/status")?.trim().parse()?)
    }
}

#[cfg(target_arch = "x86_64")]
fn main() -> ExitCode {
    match program::run(&clap::Parser::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lanyard-vectors: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn main() -> ExitCode {
    eprintln!("lanyard-vectors: it is about registers of x86-64 processors");
    ExitCode::FAILURE
}
