//! Frames and the fields of a question in JSON.
//!
//! A frame is `{"id": 97, "extended": false, "fd": false, "remote": false, "data": "0100"}`.

use anyhow::{Context, Result, bail};
use drivers::{ArbitrationId, Format, Frame};
use serde_json::{Value, json};
use tests::sim;

/// A text field.
pub fn text<'a>(question: &'a Value, key: &str) -> Result<&'a str> {
    question[key].as_str().with_context(|| format!("{key} must be a text"))
}

/// A number field.
pub fn number(question: &Value, key: &str) -> Result<f64> {
    question[key].as_f64().with_context(|| format!("{key} must be a number"))
}

/// A field that counts from zero.
pub fn index(question: &Value, key: &str) -> Result<usize> {
    let number = question[key].as_u64().with_context(|| format!("{key} must be a whole number"))?;
    usize::try_from(number).with_context(|| format!("{key} is too large"))
}

/// What both kinds of frames have.
struct Fields {
    id: u32,
    extended: bool,
    fd: bool,
    remote: bool,
    data: Vec<u8>,
}

impl Fields {
    fn read(question: &Value) -> Result<Self> {
        let frame = &question["frame"];
        let flag = |key: &str| frame[key].as_bool().unwrap_or(false);
        let id = frame["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        let (id, extended) = (id.context("a frame has no id")?, flag("extended"));
        if id > if extended { 0x1FFF_FFFF } else { 0x7FF } {
            bail!("id {id:#x} has too many bits");
        }
        let data = bytes(text(frame, "data")?)?;
        if data.len() > if flag("fd") { 64 } else { 8 } {
            bail!("a frame of {} bytes is too long", data.len());
        }
        Ok(Self { id, extended, fd: flag("fd"), remote: flag("remote"), data })
    }

    fn json(&self) -> Value {
        let data: String = self.data.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "id": self.id, "extended": self.extended, "fd": self.fd, "remote": self.remote, "data": data })
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.with_context(|| format!("{hex:?} is not bytes in hex"))?;
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// The frame of a question, as drivers take it.
pub fn driver_frame(question: &Value) -> Result<Frame> {
    let fields = Fields::read(question)?;
    let id = if fields.extended {
        ArbitrationId::extended(fields.id)
    } else {
        ArbitrationId::Standard(u16::try_from(fields.id).context("id")?)
    };
    Ok(match (fields.fd, fields.remote) {
        (true, _) => Frame::fd(id, &fields.data),
        (false, true) => Frame::remote(id),
        (false, false) => Frame::classic(id, &fields.data),
    })
}

/// A driver's frame as an answer.
pub fn from_driver(frame: &Frame) -> Value {
    let (id, extended) = number_of(frame.id());
    let format = frame.format();
    let (fd, remote) = (format == Format::FdBrs, format == Format::Remote);
    Fields { id, extended, fd, remote, data: frame.payload().to_vec() }.json()
}

/// An identifier, and whether it has 29 bits.
pub fn number_of(id: ArbitrationId) -> (u32, bool) {
    match id {
        ArbitrationId::Standard(id) => (u32::from(id), false),
        ArbitrationId::Extended(id) => (id, true),
    }
}

/// The frame of a question, as simulated drives take it. A remote request asks for eight bytes.
pub fn simulated_frame(question: &Value) -> Result<sim::frame::Frame> {
    let fields = Fields::read(question)?;
    let frame = match (fields.fd, fields.remote) {
        (true, _) => sim::frame::Frame::fd(fields.id, &fields.data),
        (false, true) => sim::frame::Frame::request(fields.id, 8),
        (false, false) => sim::frame::Frame::data(fields.id, &fields.data),
    };
    Ok(frame.with_extended(fields.extended))
}

/// A simulated drive's frame as an answer.
pub fn from_simulated(frame: &sim::frame::Frame) -> Value {
    let data = frame.payload().to_vec();
    Fields { id: frame.id, extended: frame.extended, fd: frame.is_fd(), remote: frame.remote, data }.json()
}
