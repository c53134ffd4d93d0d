//! What a client of socketcand says: elements `< word arguments >` one after the other, of which those go on to the server
//! that are known, well-formed and allowed (reference: hopr.md, 6).
//!
//! What lives here: where an element begins and ends, and which ones pass. No I/O. What must never live here: anything more
//! lenient than the real server. That one looks for the first `<` and the first `>`, compares the beginning with its words
//! and scans numbers as C does: signs, `0x`, wrapping. Here exactly one form of each element passes, and bytes that are
//! part of none end the link, so that what the server makes of the stream is what was looked at here. An element goes on
//! whole and in one piece: the server hangs up on half ones.

use std::sync::Arc;

use config::Cyclic;
use drivers::{ArbitrationId, Frame};

use super::content::{Content, Fault};
use super::reach::{Passage, Reach, Refusal, Standing};

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
    /// What its frames may reach; `None`: nothing is known of what is behind the server.
    reach: Option<Arc<Reach>>,
    /// The beginning of an element whose end has not come.
    held: Vec<u8>,
}

/// What becomes of an element.
enum Verdict {
    /// It passes, and moves nothing.
    Beat,
    /// It passes if what it sends does.
    Sends(Sends),
    /// Its client gets this instead.
    Refused(&'static [u8]),
}

/// What an element has the server send.
enum Sends {
    /// A frame, now or again and again.
    Frame(Frame),
    /// Frames of this identifier, of which nobody here sees the bytes.
    Channel(ArbitrationId),
    /// Bytes on such a channel, which was looked at when it was set up.
    OnChannel,
}

impl Socketcand {
    /// A client that has sent nothing. `bus`: the only one it may open; `cyclic`: whether it may have the server's kernel
    /// send by itself; `reach`: what its frames may reach.
    #[must_use]
    pub fn new(bus: Option<&str>, cyclic: Cyclic, reach: Option<Arc<Reach>>) -> Self {
        Self { bus: bus.map(str::to_owned), cyclic, reach, held: Vec::new() }
    }

    /// One read of the client's, who stands to the motors as told. Appends to `on` what goes to the server, in one write, whole elements as they came, and to
    /// `back` what the client is answered in place of elements that were refused. The beginning of an element is held until
    /// its end comes.
    ///
    /// # Errors
    /// The link must be cut. What stands in `on` came before the fault.
    pub fn pass(
        &mut self,
        come: &[u8],
        standing: Standing,
        on: &mut Vec<u8>,
        back: &mut Vec<u8>,
    ) -> Result<Content, Fault> {
        let mut content = Content::default();
        for &byte in come {
            if !self.completed(byte)? {
                continue;
            }
            if self.admit(standing, &mut content, back)? {
                on.extend_from_slice(&self.held);
            }
            self.held.clear();
        }
        Ok(content)
    }

    /// Whether the element that is held passes. Notes what it does, and answers it if it does not.
    fn admit(&self, standing: Standing, content: &mut Content, back: &mut Vec<u8>) -> Result<bool, Fault> {
        let sends = match self.judge() {
            Verdict::Beat => {
                content.beat();
                return Ok(true);
            }
            Verdict::Refused(answer) => {
                back.extend_from_slice(answer);
                return Ok(false);
            }
            Verdict::Sends(sends) => sends,
        };
        let Some(reach) = &self.reach else {
            content.unjudged();
            return Ok(true);
        };
        let passage = match sends {
            Sends::Frame(frame) => reach.judge(&frame, standing),
            Sends::Channel(id) => reach.judge_channel(id),
            Sends::OnChannel => Ok(Passage::Listed),
        };
        match passage {
            Ok(passage) => {
                content.frame(&passage);
                Ok(true)
            }
            Err(refusal @ Refusal::TooFast { .. }) => Err(Fault::Refused(refusal)),
            Err(refusal) => {
                back.extend_from_slice(answer(&refusal).as_bytes());
                content.refuse(refusal);
                Ok(false)
            }
        }
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
            "send" => sends(frame(arguments).map(Sends::Frame)),
            "fdsend" => sends(fd_frame(arguments).map(Sends::Frame)),
            "add" => self.by_itself(timed(arguments).and_then(frame).map(Sends::Frame)),
            "update" => self.by_itself(frame(arguments).map(Sends::Frame)),
            "delete" | "unsubscribe" => beats(is_identifier_alone(arguments)),
            "filter" => beats(timed(arguments).and_then(frame).is_some()),
            "muxfilter" => beats(timed(arguments).is_some_and(is_mux_filter)),
            "subscribe" => beats(timed(arguments).is_some_and(is_identifier_alone)),
            "statistics" => beats(matches!(arguments, [pause] if is_decimal(pause))),
            // The kernel answers with frames of the first identifier, so it is a command.
            "isotpconf" => sends(channel(arguments).map(Sends::Channel)),
            // The server takes its digits from a fixed place.
            "sendpdu" if !is_pdu(rest) => Verdict::Refused(MALFORMED),
            "sendpdu" if rest.len() <= 2 * SINGLE_FRAME => Verdict::Sends(Sends::OnChannel),
            "sendpdu" => self.by_itself(Some(Sends::OnChannel)),
            _ => Verdict::Refused(UNKNOWN),
        }
    }

    fn open(&self, arguments: &[&str]) -> Verdict {
        let [bus] = arguments else { return Verdict::Refused(MALFORMED) };
        let allowed = self.bus.as_deref().is_none_or(|only| only == *bus);
        if allowed && bus.len() <= LONGEST_BUS { Verdict::Beat } else { Verdict::Refused(NO_SUCH_BUS) }
    }

    /// What the server's kernel goes on with when nothing more comes.
    fn by_itself(&self, what: Option<Sends>) -> Verdict {
        match self.cyclic {
            Cyclic::Refused => Verdict::Refused(NOT_BY_ITSELF),
            Cyclic::Allowed => sends(what),
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

fn beats(is_good: bool) -> Verdict {
    if is_good { Verdict::Beat } else { Verdict::Refused(MALFORMED) }
}

fn sends(what: Option<Sends>) -> Verdict {
    what.map_or(Verdict::Refused(MALFORMED), Verdict::Sends)
}

/// Why a frame does not go on, in the server's words for an error; without what would end the element.
fn answer(refusal: &Refusal) -> String {
    let clean = |c: char| if (' '..='~').contains(&c) && !"<>".contains(c) { c } else { '?' };
    format!("< error {} >", refusal.to_string().chars().map(clean).collect::<String>())
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
fn identifier(text: &str) -> Option<ArbitrationId> {
    let is_extended = text.len() == 8;
    let highest = if is_extended { HIGHEST_EXTENDED } else { HIGHEST };
    let id = u32::from_str_radix(text, 16).ok().filter(|id| is_hex(text, 8) && *id <= highest)?;
    Some(if is_extended {
        ArbitrationId::extended(id)
    } else {
        ArbitrationId::standard(u16::try_from(id).ok()?)
    })
}

fn is_identifier_alone(arguments: &[&str]) -> bool {
    matches!(arguments, [id] if identifier(id).is_some())
}

/// So many bytes in words of their own, as a decimal number of at most `most` says.
fn payload(length: &str, bytes: &[&str], most: usize) -> Option<Vec<u8>> {
    let is_right = is_decimal(length) && length.parse() == Ok(bytes.len()) && bytes.len() <= most;
    let byte = |byte: &&str| u8::from_str_radix(byte, 16).ok().filter(|_| is_hex(byte, 2));
    bytes.iter().map(byte).collect::<Option<Vec<u8>>>().filter(|_| is_right)
}

/// Identifier, length, bytes.
fn frame(arguments: &[&str]) -> Option<Frame> {
    let [id, length, bytes @ ..] = arguments else { return None };
    Some(Frame::classic(identifier(id)?, &payload(length, bytes, 8)?))
}

/// Identifier, flags, length, bytes.
fn fd_frame(arguments: &[&str]) -> Option<Frame> {
    let [id, flags, length, bytes @ ..] = arguments else { return None };
    let frame = Frame::fd(identifier(id)?, &payload(length, bytes, 64)?);
    is_hex(flags, 2).then_some(frame)
}

/// Identifier to send with, identifier to hear, and what the channel keeps to. Returns the first.
fn channel(arguments: &[&str]) -> Option<ArbitrationId> {
    let [sends, ..] = arguments else { return None };
    let is_good = (5..=10).contains(&arguments.len()) && arguments.iter().all(|word| is_hex(word, 8));
    identifier(sends).filter(|_| is_good)
}

/// Identifier, number of frames, eight bytes for each.
fn is_mux_filter(arguments: &[&str]) -> bool {
    let [id, count, bytes @ ..] = arguments else { return false };
    // The first is a mask; the kernel takes 256 besides.
    let count = count.parse().ok().filter(|frames: &usize| is_decimal(count) && (2..=257).contains(frames));
    identifier(id).is_some()
        && count.is_some_and(|frames| bytes.len() == 8 * frames)
        && bytes.iter().all(|byte| byte.len() == 2 && is_hex(byte, 2))
}

/// What comes behind seconds and microseconds.
fn timed<'a, 'b>(arguments: &'a [&'b str]) -> Option<&'a [&'b str]> {
    let [seconds, micros, others @ ..] = arguments else { return None };
    (is_decimal(seconds) && is_decimal(micros)).then_some(others)
}

/// Whole bytes in one word.
fn is_pdu(text: &str) -> bool {
    text.len().is_multiple_of(2) && is_hex(text, 2 * 4_095)
}

#[cfg(test)]
mod tests;
