//! `lanyard-frames`: what Lanyard sends and understands, and what its simulated drives do, as JSON lines, so that
//! other people's packages can be held against it.
//!
//! What lives here: the loop that reads one question a line from stdin and answers each with one line on stdout.
//! What is asked of the crate `drivers` is in [`ours`], of the simulated drives in [`simulated`]; how frames look
//! in JSON is in [`wire`]. Nothing here opens a socket or looks at a clock: simulated time passes when asked.
//! What must never live here: an opinion on what a frame should be. That is the packages' part (`../python`).
//!
//! An answer is `{"ok": ...}` or `{"error": "..."}`.

mod ours;
mod simulated;
mod wire;

use std::io::{BufRead, Write, stdin, stdout};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::ours::Ours;
use crate::simulated::Simulated;

fn main() -> Result<()> {
    let (mut ours, mut simulated) = (Ours::default(), Simulated::default());
    let mut out = stdout().lock();
    for line in stdin().lock().lines() {
        let answer = match answer(&line.context("cannot read a question")?, &mut ours, &mut simulated) {
            Ok(answer) => json!({ "ok": answer }),
            Err(error) => json!({ "error": format!("{error:#}") }),
        };
        writeln!(out, "{answer}").and_then(|()| out.flush()).context("nobody reads the answer")?;
    }
    Ok(())
}

fn answer(line: &str, ours: &mut Ours, simulated: &mut Simulated) -> Result<Value> {
    let question: Value = serde_json::from_str(line).context("not JSON")?;
    let ask = wire::text(&question, "ask")?;
    if let Some(answer) = ours.answer(ask, &question)? {
        return Ok(answer);
    }
    match simulated.answer(ask, &question)? {
        Some(answer) => Ok(answer),
        None => bail!("nothing is known of {ask:?}"),
    }
}
