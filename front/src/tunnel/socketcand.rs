//! What a client of socketcand says: elements `< word arguments >` one after the other, of which those go on to the server
//! that are known, well-formed and allowed (reference: hopr.md, 6).
//!
//! What lives here: where an element begins and ends, and which ones pass. No I/O. What must never live here: anything more
//! lenient than the real server. That one looks for the first `<` and the first `>`, compares the beginning with its words
//! and scans numbers as C does: signs, `0x`, wrapping. Here exactly one form of each element passes, and bytes that are
//! part of none end the link, so that what the server makes of the stream is what was looked at here. An element goes on
//! whole and in one piece: the server hangs up on half ones.

use config::Cyclic;

use super::content::{Content, Fault};

/// The longest element there is: `sendpdu` with the 4095 bytes that ISO-TP carries, two digits each. The server has room
/// for 8290 characters, and writes one more than that.
const LONGEST: usize = "< sendpdu  >".len() + 2 * 4_095;
/// What fits into one frame of ISO-TP. Of anything longer the kernel sends the rest by itself, and does not stop when its
/// socket is closed.
const SINGLE_FRAME: usize = 7;
/// `IFNAMSIZ` without the end: the longest name of an interface.
const LONGEST_BUS: usize = 15;
/// The highest identifiers of both forms.
const HIGHEST: u32 = 0x7FF;
const HIGHEST_EXTENDED: u32 = 0x1FFF_FFFF;

/// As the server answers what it does not know.
const UNKNOWN: &[u8] = b"< error unknown command >";
/// As the server answers, which then hangs up.
const NO_SUCH_BUS: &[u8] = b"< error could not open bus >";
/// The server says nothing then, and does nothing.
const MALFORMED: &[u8] = b"< error malformed command >";
const NOT_BY_ITSELF: &[u8] = b"< error refused: it would go on without its client >";

/// One client's elements.
#[derive(Debug)]
pub struct Socketcand {
    bus: Option<String>,
    cyclic: Cyclic,
    /// The beginning of an element whose end has not come.
    held: Vec<u8>,
}

/// What becomes of an element.
enum Verdict {
    /// It passes, and moves nothing.
    Beat,
    /// It passes, and may move something.
    Command,
    /// Its client gets this instead.
    Refused(&'static [u8]),
}

impl Socketcand {
    /// A client that has sent nothing. `bus`: the only one it may open; `cyclic`: whether it may have the server's kernel
    /// send by itself.
    #[must_use]
    pub fn new(bus: Option<&str>, cyclic: Cyclic) -> Self {
        Self { bus: bus.map(str::to_owned), cyclic, held: Vec::new() }
    }

    /// One read of the client's. Appends to `on` what goes to the server, in one write, whole elements as they came, and to
    /// `back` what the client is answered in place of elements that were refused. The beginning of an element is held until
    /// its end comes.
    ///
    /// # Errors
    /// The link must be cut. What stands in `on` came before the fault.
    pub fn pass(&mut self, come: &[u8], on: &mut Vec<u8>, back: &mut Vec<u8>) -> Result<Content, Fault> {
        let mut content = Content::default();
        for &byte in come {
            if !self.completed(byte)? {
                continue;
            }
            match self.judge() {
                Verdict::Beat => {
                    content.beat();
                    on.extend_from_slice(&self.held);
                }
                Verdict::Command => {
                    content.command();
                    on.extend_from_slice(&self.held);
                }
                Verdict::Refused(answer) => back.extend_from_slice(answer),
            }
            self.held.clear();
        }
        Ok(content)
    }

    /// Takes one byte; whether an element ends with it.
    fn completed(&mut self, byte: u8) -> Result<bool, Fault> {
        if self.held.is_empty() {
            return match byte {
                b'<' => {
                    self.held.push(byte);
                    Ok(false)
                }
                // What people type after an element. The server would hang up if it came alone.
                b' ' | b'\t' | b'\r' | b'\n' => Ok(false),
                _ => Err(Fault::Outside(byte)),
            };
        }
        match byte {
            b'<' => return Err(Fault::Nested),
            b' '..=b'~' => {}
            _ => return Err(Fault::Unprintable(byte)),
        }
        if self.held.len() == LONGEST {
            return Err(Fault::Endless(LONGEST));
        }
        self.held.push(byte);
        Ok(byte == b'>')
    }

    fn judge(&self) -> Verdict {
        let text = str::from_utf8(&self.held).ok();
        let inside = text.and_then(|text| text.strip_prefix("< ")?.strip_suffix(" >"));
        let Some(inside) = inside else { return Verdict::Refused(UNKNOWN) };
        match inside.split_once(' ') {
            None => bare(inside),
            Some((word, rest)) => self.with_arguments(word, rest),
        }
    }

    fn with_arguments(&self, word: &str, rest: &str) -> Verdict {
        let arguments: Vec<&str> = rest.split(' ').filter(|argument| !argument.is_empty()).collect();
        let arguments = arguments.as_slice();
        match word {
            "open" => self.open(arguments),
            "send" => passes(is_frame(arguments), Verdict::Command),
            "fdsend" => passes(is_fd_frame(arguments), Verdict::Command),
            "add" => self.by_itself(is_timed(arguments, is_frame)),
            "update" => self.by_itself(is_frame(arguments)),
            "delete" | "unsubscribe" => passes(is_identifier_alone(arguments), Verdict::Beat),
            "filter" => passes(is_timed(arguments, is_frame), Verdict::Beat),
            "muxfilter" => passes(is_timed(arguments, is_mux_filter), Verdict::Beat),
            "subscribe" => passes(is_timed(arguments, is_identifier_alone), Verdict::Beat),
            "statistics" => passes(matches!(arguments, [pause] if is_decimal(pause)), Verdict::Beat),
            // The kernel answers with frames of this identifier, so it is a command.
            "isotpconf" => {
                let good =
                    (5..=10).contains(&arguments.len()) && arguments.iter().all(|word| is_hex(word, 8));
                passes(good, Verdict::Command)
            }
            // The server takes its digits from a fixed place.
            "sendpdu" if !is_pdu(rest) => Verdict::Refused(MALFORMED),
            "sendpdu" if rest.len() <= 2 * SINGLE_FRAME => Verdict::Command,
            "sendpdu" => self.by_itself(true),
            _ => Verdict::Refused(UNKNOWN),
        }
    }

    fn open(&self, arguments: &[&str]) -> Verdict {
        let [bus] = arguments else { return Verdict::Refused(MALFORMED) };
        let allowed = self.bus.as_deref().is_none_or(|only| only == *bus);
        if allowed && bus.len() <= LONGEST_BUS { Verdict::Beat } else { Verdict::Refused(NO_SUCH_BUS) }
    }

    /// What the server's kernel goes on with when nothing more comes.
    fn by_itself(&self, is_good: bool) -> Verdict {
        match self.cyclic {
            Cyclic::Refused => Verdict::Refused(NOT_BY_ITSELF),
            Cyclic::Allowed => passes(is_good, Verdict::Command),
        }
    }
}

/// Elements without arguments, for which the server has no second form either.
fn bare(word: &str) -> Verdict {
    match word {
        "echo" | "rawmode" | "bcmmode" | "isotpmode" | "controlmode" => Verdict::Beat,
        _ => Verdict::Refused(UNKNOWN),
    }
}

fn passes(is_good: bool, verdict: Verdict) -> Verdict {
    if is_good { verdict } else { Verdict::Refused(MALFORMED) }
}

/// Hexadecimal digits and nothing else, at most so many.
fn is_hex(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Decimal digits and nothing else: seconds or microseconds, which do not wrap in 64 bits.
fn is_decimal(text: &str) -> bool {
    (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// An identifier. Exactly eight digits are one of the extended form.
fn is_identifier(text: &str) -> bool {
    let highest = if text.len() == 8 { HIGHEST_EXTENDED } else { HIGHEST };
    is_hex(text, 8) && u32::from_str_radix(text, 16).is_ok_and(|id| id <= highest)
}

fn is_identifier_alone(arguments: &[&str]) -> bool {
    matches!(arguments, [id] if is_identifier(id))
}

/// So many bytes in words of their own, as a decimal number of at most `most` says.
fn is_payload(length: &str, bytes: &[&str], most: usize) -> bool {
    is_decimal(length)
        && length.parse() == Ok(bytes.len())
        && bytes.len() <= most
        && bytes.iter().all(|byte| is_hex(byte, 2))
}

/// Identifier, length, bytes.
fn is_frame(arguments: &[&str]) -> bool {
    matches!(arguments, [id, length, bytes @ ..] if is_identifier(id) && is_payload(length, bytes, 8))
}

/// Identifier, flags, length, bytes.
fn is_fd_frame(arguments: &[&str]) -> bool {
    matches!(arguments, [id, flags, length, bytes @ ..]
        if is_identifier(id) && is_hex(flags, 2) && is_payload(length, bytes, 64))
}

/// Identifier, number of frames, eight bytes for each.
fn is_mux_filter(arguments: &[&str]) -> bool {
    let [id, count, bytes @ ..] = arguments else { return false };
    // The first is a mask; the kernel takes 256 besides.
    let count = count.parse().ok().filter(|frames: &usize| is_decimal(count) && (2..=257).contains(frames));
    is_identifier(id)
        && count.is_some_and(|frames| bytes.len() == 8 * frames)
        && bytes.iter().all(|byte| byte.len() == 2 && is_hex(byte, 2))
}

/// Seconds and microseconds before the rest.
fn is_timed(arguments: &[&str], rest: impl Fn(&[&str]) -> bool) -> bool {
    matches!(arguments, [seconds, micros, others @ ..]
        if is_decimal(seconds) && is_decimal(micros) && rest(others))
}

/// Whole bytes in one word.
fn is_pdu(text: &str) -> bool {
    text.len().is_multiple_of(2) && is_hex(text, 2 * 4_095)
}

#[cfg(test)]
mod tests;
