//! What is asked of the crate under test: `drivers`.

use anyhow::{Context, Result, bail};
use drivers::registry::{Common, build, family};
use drivers::{
    AfterStop, Amperes, Drive, FrameList, Observation, RevolutionsPerSecond, Settings, Value as Setting,
};
use serde_json::{Value, json};

use crate::wire::{self, index, number, text};

/// The drives built so far.
#[derive(Default)]
pub struct Ours {
    drives: Vec<Drive>,
}

impl Ours {
    /// The answer, if the question is one for drives.
    ///
    /// `build` answers with the drive's number, which all others name as `drive`.
    pub fn answer(&mut self, ask: &str, question: &Value) -> Result<Option<Value>> {
        if ask == "build" {
            self.drives.push(built(question)?);
            return Ok(Some(json!(self.drives.len() - 1)));
        }
        let drive = || -> Result<&Drive> {
            self.drives.get(index(question, "drive")?).context("there is no such drive")
        };
        Ok(Some(match ask {
            "stop" => drive()?
                .stop
                .stages()
                .iter()
                .map(|stage| json!({ "kind": stage.kind.name(), "frames": frames(&stage.frames) }))
                .collect(),
            "enable" => drive()?.enable.steps().iter().map(|step| frames(&step.frames)).collect(),
            "velocity" => frames(&drive()?.velocity(speed(question)?)?),
            "current" => frames(&drive()?.protocol.current(Amperes(single(question, "amperes")?))),
            "poll" => frames(&drive()?.poll),
            "watchdog_ask" => frames(&drive()?.watchdog.ask),
            "watchdog" => watchdog(drive()?, question)?,
            "broadcast" => drive()?.broadcast.as_ref().map_or(Value::Null, wire::from_driver),
            "heartbeat" => heartbeat(drive()?),
            "commands" => ids(&drive()?.commands),
            "reports" => ids(&drive()?.reports),
            "decode" => {
                let drive = drive()?;
                let seen = drive.decode(&wire::driver_frame(question)?);
                seen.map_or(Value::Null, |seen| observation(drive, &seen))
            }
            "is_motion" => json!(drive()?.is_motion(&wire::driver_frame(question)?)),
            _ => return Ok(None),
        }))
    }
}

fn built(question: &Value) -> Result<Drive> {
    let name = text(question, "family")?;
    let family = family(name).with_context(|| format!("there is no family {name:?}"))?;
    let after = match text(question, "after")? {
        "hold" => AfterStop::Hold,
        "release" => AfterStop::Release,
        other => bail!("after must be hold or release, not {other:?}"),
    };
    let max_speed = RevolutionsPerSecond(single(question, "max_rps")?);
    let mut settings = Settings::default();
    for (key, value) in question["settings"].as_object().context("settings must be an object")? {
        settings.insert(key, setting(value).with_context(|| format!("{key} = {value}"))?);
    }
    Ok(build(family, &settings, &Common { after, standstill: None, max_speed })?)
}

fn setting(value: &Value) -> Result<Setting> {
    Ok(match value {
        Value::Bool(flag) => Setting::Flag(*flag),
        Value::String(text) => Setting::Text(text.clone()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Setting::Integer(whole),
            None => Setting::Float(number.as_f64().context("is no number")?),
        },
        // An empty list is one of texts.
        Value::Array(list) if !list.is_empty() && list.iter().all(Value::is_i64) => {
            Setting::Integers(list.iter().filter_map(Value::as_i64).collect())
        }
        Value::Array(list) if list.iter().all(Value::is_string) => {
            Setting::Texts(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        }
        Value::Array(_) | Value::Null | Value::Object(_) => bail!("is nothing a configuration could say"),
    })
}

#[expect(clippy::cast_possible_truncation, reason = "drives take an f32, and the scripts give one")]
fn single(question: &Value, key: &str) -> Result<f32> {
    Ok(number(question, key)? as f32)
}

fn speed(question: &Value) -> Result<RevolutionsPerSecond> {
    single(question, "rps").map(RevolutionsPerSecond)
}

fn frames(list: &FrameList) -> Value {
    list.as_slice().iter().map(wire::from_driver).collect()
}

fn ids(list: &[drivers::ArbitrationId]) -> Value {
    let ids = list.iter().map(|id| wire::number_of(*id));
    ids.map(|(id, extended)| json!({ "id": id, "extended": extended })).collect()
}

/// As sent while nobody, and while this drive, is granted.
fn heartbeat(drive: &Drive) -> Value {
    drive.heartbeat.map_or(Value::Null, |heartbeat| {
        json!({
            "idle": wire::from_driver(&heartbeat.frame),
            "granted": wire::from_driver(&heartbeat.frame.marked(heartbeat.mark)),
        })
    })
}

fn watchdog(drive: &Drive, question: &Value) -> Result<Value> {
    Ok(match drive.protocol.watchdog(&wire::driver_frame(question)?) {
        None => Value::Null,
        Some(drivers::WatchdogReading::Off) => json!({ "us": 0 }),
        Some(drivers::WatchdogReading::On(time)) => json!({ "us": u64::try_from(time.as_micros())? }),
    })
}

/// `fault` is absent when the frame does not speak of faults, null when it says that there is none.
fn observation(drive: &Drive, seen: &Observation) -> Value {
    let mut answer = json!({
        "power": seen.power.map(|power| format!("{power:?}")),
        "output": seen.output.map(|output| format!("{output:?}")),
        "state": seen.state,
        "velocity": seen.velocity.map(|velocity| velocity.0),
        "position": seen.position.map(|position| position.0),
        "answer": seen.answer,
        "refused": seen.refused.map(|refusal| json!({ "request": refusal.request, "code": refusal.code })),
    });
    if let Some(fault) = seen.fault {
        answer["fault"] = json!(fault.map(|fault| fault.0));
        answer["fault_words"] = json!(fault.map(|fault| drive.explain(fault)));
    }
    answer
}
