//! A gRPC client that awaits nothing: calls over one HTTP/2 connection, in one TCP segment or some time apart.
//!
//! Its messages are written out byte by byte, so nothing here shares a schema with what is called. It calls whatever
//! serves Viam's components: Lanyard, or a server behind it, under any names.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::clock::Moment;
use crate::python::{Client, Clients};

/// gRPC's status of a call that succeeded.
pub const OK: i64 = 0;

/// One call: method, message and metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    path: &'static str,
    message: Vec<u8>,
    metadata: Vec<(String, String)>,
}

impl Call {
    /// `Motor.SetPower`.
    #[must_use]
    pub fn set_power(motor: &str, power: f64) -> Self {
        Self::new("/viam.component.motor.v1.MotorService/SetPower", [text(1, motor), double(2, power)])
    }

    /// `Motor.GoFor`.
    #[must_use]
    pub fn go_for(motor: &str, rpm: f64, revolutions: f64) -> Self {
        let fields = [text(1, motor), double(2, rpm), double(3, revolutions)];
        Self::new("/viam.component.motor.v1.MotorService/GoFor", fields)
    }

    /// `Motor.Stop`.
    #[must_use]
    pub fn stop(motor: &str) -> Self {
        Self::new("/viam.component.motor.v1.MotorService/Stop", [text(1, motor)])
    }

    /// `Base.SetVelocity`, straight ahead, in mm/s.
    #[must_use]
    pub fn set_velocity(base: &str, forward: f64) -> Self {
        // Vector3: y is field 2.
        let fields = [text(1, base), bytes(2, &double(2, forward)), bytes(3, &[])];
        Self::new("/viam.component.base.v1.BaseService/SetVelocity", fields)
    }

    /// `Robot.StopAll`.
    #[must_use]
    pub fn stop_all() -> Self {
        Self::new("/viam.robot.v1.RobotService/StopAll", [])
    }

    fn new<const N: usize>(path: &'static str, fields: [Vec<u8>; N]) -> Self {
        Self { path, message: fields.concat(), metadata: Vec::new() }
    }

    /// Under this session.
    #[must_use]
    pub fn under(self, session: &str) -> Self {
        self.with("viam-sid", session)
    }

    /// With one more line of metadata.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.metadata.push((name.to_owned(), value.to_owned()));
        self
    }

    fn json(&self) -> Value {
        let hex: String = self.message.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "path": self.path, "message": hex, "metadata": self.metadata })
    }
}

/// Field `field` of a message, of the kind that has a length: short ones only.
fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    // No name or message here is longer than one byte of length can say.
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX).min(0x7f);
    [&[field << 3 | 2, length], &content[..usize::from(length)]].concat()
}

fn text(field: u8, text: &str) -> Vec<u8> {
    bytes(field, text.as_bytes())
}

fn double(field: u8, number: f64) -> Vec<u8> {
    [&[field << 3 | 1][..], &number.to_le_bytes()].concat()
}

/// How calls follow one another on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spacing {
    /// All in one TCP segment.
    OneSegment,
    /// Each in a segment of its own, so much later than the one before.
    Apart(Duration),
}

/// Calls under way.
#[derive(Clone, Debug)]
pub struct Sent(Vec<Value>);

impl Sent {
    /// Each by itself.
    #[must_use]
    pub fn each(&self) -> Vec<Self> {
        self.0.iter().map(|stream| Self(vec![stream.clone()])).collect()
    }
}

/// What came back of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number of the gRPC status; `None` when the call ended without one.
    pub status: Option<i64>,
    /// Its message, or how the call ended without a status.
    pub message: String,
}

/// The client, a process of its own.
#[derive(Debug)]
pub struct Pipeline {
    client: Client,
}

impl Pipeline {
    /// A new one, connected.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(clients: &mut Clients, address: &str) -> Result<Self> {
        let mut client = clients.fork_pipeline()?;
        client.ask("connect", json!({ "address": address }))?;
        Ok(Self { client })
    }

    /// Opens a session that beats every so often from now on; returns its id.
    ///
    /// # Errors
    /// It is refused.
    pub fn open_session(&mut self, every: Duration) -> Result<String> {
        let id = self.client.ask("open_session", json!({ "every": every.as_secs_f64() }))?;
        Ok(id.as_str().context("a session without id")?.to_owned())
    }

    /// Sends calls without waiting for anything.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send(&mut self, calls: &[Call], spacing: Spacing) -> Result<Sent> {
        self.send_with(calls, spacing, &[])
    }

    /// The same, but the messages of the calls in `late` (places in `calls`) follow after everything else, apart from
    /// their headers: such a call begins before, and ends after, those that stand behind it.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn send_with(&mut self, calls: &[Call], spacing: Spacing, late: &[usize]) -> Result<Sent> {
        let gap = match spacing {
            Spacing::OneSegment => 0.0,
            Spacing::Apart(gap) => gap.as_secs_f64(),
        };
        let calls: Vec<Value> = calls.iter().map(Call::json).collect();
        let streams = self.client.ask("send", json!({ "calls": calls, "gap": gap, "bodies_last": late }))?;
        Ok(Sent(streams.as_array().context("no streams")?.clone()))
    }

    /// Waits for what comes back of calls; `None` for each that lasts longer than the limit.
    ///
    /// # Errors
    /// The client has died.
    pub fn answers(&mut self, sent: &Sent, limit: Duration) -> Result<Vec<Option<Answer>>> {
        let arguments = json!({ "streams": sent.0, "limit": limit.as_secs_f64() });
        let told = self.client.call_within(limit + PATIENCE, "answered", arguments)?.value()?;
        let told = told.as_array().context("no answers")?;
        Ok(told.iter().map(answer).collect())
    }

    /// Makes a call and waits for it.
    ///
    /// # Errors
    /// It is not answered in time.
    pub fn call(&mut self, call: &Call) -> Result<Answer> {
        let sent = self.send(std::slice::from_ref(call), Spacing::OneSegment)?;
        let answer = self.answers(&sent, PATIENCE)?.pop().flatten();
        answer.with_context(|| format!("{} was not answered within {PATIENCE:?}", call.path))
    }

    /// Makes a call that must succeed.
    ///
    /// # Errors
    /// It does not.
    pub fn ask(&mut self, call: &Call) -> Result<()> {
        let answer = self.call(call)?;
        ensure!(answer.status == Some(OK), "{}: {answer:?}", call.path);
        Ok(())
    }

    /// Its session beats no more.
    ///
    /// # Errors
    /// The client has died.
    pub fn fall_silent(&mut self) -> Result<()> {
        self.client.ask("fall_silent", json!({})).map(drop)
    }

    /// Kills the process, and returns when.
    ///
    /// # Errors
    /// It has died before.
    pub fn kill(&mut self) -> Result<Moment> {
        self.client.kill()
    }

    /// Sends the process a signal.
    ///
    /// # Errors
    /// It has died.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.client.signal(signal)
    }
}

/// How long an answer may take on the slowest rig.
const PATIENCE: Duration = Duration::from_secs(10);

fn answer(told: &Value) -> Option<Answer> {
    let message = told["message"].as_str().unwrap_or_default().to_owned();
    (!told.is_null()).then(|| Answer { status: told["status"].as_i64(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protobuf_has_them() {
        let call = Call::set_power("left", 1.0).under("x");
        let hex = "0a046c65667411000000000000f03f";
        assert_eq!(call.json()["message"], hex);
        assert_eq!(call.json()["metadata"], json!([["viam-sid", "x"]]));
        let call = Call::set_velocity("base1", 2.0);
        assert_eq!(call.json()["message"], "0a05626173653112091100000000000000401a00");
        assert_eq!(Call::stop_all().json()["message"], "");
    }
}
