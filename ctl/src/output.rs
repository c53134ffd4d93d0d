//! Writing to whatever reads us: a terminal with colours, a pipe without, a reader that goes away.

use std::io::{self, IsTerminal, Write};

use crate::status::Status;
use crate::text::{Line, Tone, render};

/// Writes a status as one JSON line or as text.
pub fn status(out: &mut dyn Write, status: &Status, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(status)?)?;
    } else {
        text(out, &render(status), colours_are_welcome())?;
    }
    out.flush()?;
    Ok(())
}

fn colours_are_welcome() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn text(out: &mut dyn Write, lines: &[Line], colours: bool) -> io::Result<()> {
    for line in lines {
        let style = match line.tone {
            _ if !colours => "",
            Tone::Plain => "",
            Tone::Title => "\x1b[1m",
            Tone::Good => "\x1b[1;32m",
            Tone::Loud => "\x1b[1;31m",
        };
        let end = if style.is_empty() { "" } else { "\x1b[0m" };
        writeln!(out, "{style}{}{end}", line.text)?;
    }
    Ok(())
}

/// Whether an error only says that nobody reads our output any more.
pub fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_only_where_they_are_welcome() {
        let lines = [Line { tone: Tone::Loud, text: "!! x".to_owned() }];
        let mut plain = Vec::new();
        text(&mut plain, &lines, false).unwrap();
        assert_eq!(plain, b"!! x\n");
        let mut coloured = Vec::new();
        text(&mut coloured, &lines, true).unwrap();
        assert_eq!(coloured, b"\x1b[1;31m!! x\x1b[0m\n");
    }

    #[test]
    fn only_a_broken_pipe_is_a_reader_that_left() {
        assert!(reader_is_gone(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
        assert!(!reader_is_gone(&io::Error::from(io::ErrorKind::NotFound).into()));
        assert!(!reader_is_gone(&anyhow::anyhow!("broken pipe")));
    }
}
