//! Every call of the core as a value: to be written down, read, and made again.

use drivers::{ArbitrationId, Format, Frame};
use shm_proto::verdicts::{BusHealth, Reason};
use shm_proto::{BeatView, Generation, Nanos, TripId, TripSeen};

use super::entry::{Damaged, Entry, Fields, Kind};
use crate::bus::Confirms;
use crate::core::{Arrival, Core, Cost, First, Kept, Origin, Report, Wire};
use crate::kernel_stop::Tally;

/// A call of the core.
#[expect(missing_docs, reason = "the fields are the arguments of the call")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input {
    /// [`Core::bus_confirms`].
    Confirms { bus: usize, confirms: Confirms },
    /// [`Core::was_reset_by_watchdog`].
    WatchdogReset { first: First, now: Nanos },
    /// [`Core::degraded`].
    Degraded { bits: u64 },
    /// [`Core::latches_kept`].
    Kept { kept: Kept },
    /// [`Core::start`].
    Start { now: Nanos },
    /// [`Core::step`].
    Step { now: Nanos },
    /// [`Core::costs`].
    Costs { cost: Cost },
    /// [`Core::kernel_stop`].
    KernelStop { tally: Tally, now: Nanos },
    /// [`Core::attach`].
    Attach { generation: Generation, pid: u32, now: Nanos },
    /// [`Core::detach`].
    Detach { reason: Reason, now: Nanos },
    /// [`Core::received`].
    Received { bus: usize, origin: Origin, frame: Frame, arrival: Arrival },
    /// [`Core::confirmed`].
    Confirmed { bus: usize, frame: Frame, now: Nanos },
    /// [`Core::reported`].
    Reported { bus: usize, origin: Origin, report: Report, now: Nanos },
    /// [`Core::bus_down`].
    BusDown { bus: usize, errno: i32, now: Nanos },
    /// [`Core::bus_health`].
    Health { bus: usize, health: BusHealth, now: Nanos },
    /// [`Core::bus_counters`].
    Counters { bus: usize, transmit: u16, receive: u16 },
    /// [`Core::press`].
    Press { now: Nanos },
    /// [`Core::reset`].
    Reset { seen: TripSeen, now: Nanos },
    /// [`Core::shut_down`].
    ShutDown { now: Nanos },
    /// [`Core::end`].
    End { now: Nanos },
}

impl Input {
    /// Makes the call. `front` gives the segment of a front that comes; without one there is no front.
    pub fn give(
        &self,
        core: &mut Core,
        wire: &mut dyn Wire,
        front: impl FnOnce(Generation) -> Option<BeatView>,
    ) {
        match *self {
            Self::Confirms { bus, confirms } => core.bus_confirms(bus, confirms == Confirms::OnTheWire),
            Self::WatchdogReset { first, now } => core.was_reset_by_watchdog(first, now),
            Self::Degraded { bits } => core.degraded(bits),
            Self::Kept { kept } => core.latches_kept(kept),
            Self::Start { now } => core.start(now, wire),
            Self::Step { now } => core.step(now, wire),
            Self::Costs { cost } => core.costs(cost),
            Self::KernelStop { tally, now } => core.kernel_stop(tally, now, wire),
            Self::Attach { generation, pid, now } => {
                front(generation).into_iter().for_each(|view| drop(core.attach(view, pid, now, wire)));
            }
            Self::Detach { reason, now } => drop(core.detach(reason, now, wire)),
            Self::Received { bus, origin, frame, arrival } => {
                core.received(bus, origin, &frame, arrival, wire);
            }
            Self::Confirmed { bus, frame, now } => core.confirmed(bus, &frame, now),
            Self::Reported { bus, origin, report, now } => core.reported(bus, origin, report, now, wire),
            Self::BusDown { bus, errno, now } => core.bus_down(bus, errno, now, wire),
            Self::Health { bus, health, now } => core.bus_health(bus, health, now, wire),
            Self::Counters { bus, transmit, receive } => core.bus_counters(bus, transmit, receive),
            // What these answer is published as well.
            Self::Press { now } => _ = core.press(now, wire),
            Self::Reset { seen, now } => _ = core.reset(seen, now),
            Self::ShutDown { now } => core.shut_down(now, wire),
            Self::End { now } => core.end(now),
        }
    }

    /// The call as it is written down.
    #[must_use]
    pub fn entry(&self) -> Entry {
        let of = Entry::new;
        let at = |kind: Kind, now: Nanos| of(kind).with(now.0);
        match *self {
            Self::Confirms { bus, confirms } => of(Kind::Confirms).with(bus as u64).with(confirms as u64),
            Self::WatchdogReset { first, now } => at(Kind::WatchdogReset, now).with(first as u64),
            Self::Degraded { bits } => of(Kind::Degraded).with(bits),
            Self::Kept { kept } => match kept {
                Kept::OnDisk { changes } => of(Kind::Kept).with(changes),
                Kept::Refused => of(Kind::Kept),
            },
            Self::Start { now } => at(Kind::Start, now),
            Self::Step { now } => at(Kind::Step, now),
            Self::Costs { cost } => of(Kind::Costs)
                .with(cost.allocations)
                .with(cost.minor_faults)
                .with(cost.major_faults)
                .with(cost.voluntary_switches)
                .with(cost.involuntary_switches),
            Self::KernelStop { tally, now } => {
                at(Kind::KernelStop, now).with(tally.rearms).with(tally.errors).with(tally.overtaken)
            }
            Self::Attach { generation, pid, now } => {
                at(Kind::Attach, now).with(generation.0).with(u64::from(pid))
            }
            Self::Detach { reason, now } => at(Kind::Detach, now).with(reason.number()),
            Self::Received { bus, origin, frame, arrival } => {
                let entry = at(Kind::Received, arrival.now).with(arrival.earliest.0);
                write_frame(entry.with(place(bus, origin)), &frame)
            }
            Self::Confirmed { bus, frame, now } => {
                write_frame(at(Kind::Confirmed, now).with(place(bus, Origin::Wire)), &frame)
            }
            Self::Reported { bus, origin, report, now } => {
                let (transmit, receive) = report.counters.unwrap_or_default();
                let counters = u64::from(report.counters.is_some()) << 16
                    | u64::from(transmit) << 8
                    | u64::from(receive);
                let health = report.health.map_or(NONE, BusHealth::number);
                at(Kind::Reported, now).with(place(bus, origin)).with(counters).with(health)
            }
            Self::BusDown { bus, errno, now } => {
                at(Kind::BusDown, now).with(bus as u64).with(u64::from(errno.cast_unsigned()))
            }
            Self::Health { bus, health, now } => at(Kind::Health, now).with(bus as u64).with(health.number()),
            Self::Counters { bus, transmit, receive } => {
                of(Kind::Counters).with(bus as u64).with(u64::from(transmit)).with(u64::from(receive))
            }
            Self::Press { now } => at(Kind::Press, now),
            Self::Reset { seen, now } => at(Kind::Reset, now).with(seen.trip.0).with(seen.violations),
            Self::ShutDown { now } => at(Kind::ShutDown, now),
            Self::End { now } => at(Kind::End, now),
        }
    }

    /// The call that an entry is; `None` for one that is no call.
    ///
    /// # Errors
    /// The entry is not written as this program writes it.
    pub fn read(entry: &Entry) -> Result<Option<Self>, Damaged> {
        let mut fields = entry.fields();
        let input = match entry.kind() {
            Kind::Word | Kind::Now | Kind::Sent | Kind::Verdicts | Kind::Complete | Kind::Lost => {
                return Ok(None);
            }
            Kind::Confirms => Self::Confirms {
                bus: fields.number()?,
                confirms: fields.known(|number| one_of([Confirms::OnTheWire, Confirms::Nothing], number))?,
            },
            Kind::WatchdogReset => Self::WatchdogReset {
                now: Nanos(fields.take()?),
                first: fields
                    .known(|number| one_of([First::SinceTheMachineStarted, First::AfterAnother], number))?,
            },
            Kind::Degraded => Self::Degraded { bits: fields.take()? },
            Kind::Kept if fields.end().is_ok() => Self::Kept { kept: Kept::Refused },
            Kind::Kept => Self::Kept { kept: Kept::OnDisk { changes: fields.take()? } },
            Kind::Start => Self::Start { now: Nanos(fields.take()?) },
            Kind::Step => Self::Step { now: Nanos(fields.take()?) },
            Kind::Costs => Self::Costs {
                cost: Cost {
                    allocations: fields.take()?,
                    minor_faults: fields.take()?,
                    major_faults: fields.take()?,
                    voluntary_switches: fields.take()?,
                    involuntary_switches: fields.take()?,
                },
            },
            Kind::KernelStop => Self::KernelStop {
                now: Nanos(fields.take()?),
                tally: Tally { rearms: fields.take()?, errors: fields.take()?, overtaken: fields.take()? },
            },
            Kind::Attach => Self::Attach {
                now: Nanos(fields.take()?),
                generation: Generation(fields.take()?),
                pid: fields.number()?,
            },
            Kind::Detach => {
                Self::Detach { now: Nanos(fields.take()?), reason: fields.known(Reason::from_number)? }
            }
            Kind::Received => {
                let now = Nanos(fields.take()?);
                let arrival = Arrival { earliest: Nanos(fields.take()?), now };
                let (bus, origin) = read_place(&mut fields)?;
                Self::Received { bus, origin, frame: read_frame(&mut fields)?, arrival }
            }
            Kind::Confirmed => {
                let now = Nanos(fields.take()?);
                let (bus, _) = read_place(&mut fields)?;
                Self::Confirmed { bus, frame: read_frame(&mut fields)?, now }
            }
            Kind::Reported => {
                let now = Nanos(fields.take()?);
                let (bus, origin) = read_place(&mut fields)?;
                let [.., are_told, transmit, receive] = fields.take()?.to_be_bytes();
                let health = match fields.take()? {
                    NONE => None,
                    number => Some(BusHealth::from_number(number).ok_or(Damaged)?),
                };
                let counters = (are_told == 1).then_some((transmit, receive));
                Self::Reported { bus, origin, report: Report { health, counters }, now }
            }
            Kind::BusDown => Self::BusDown {
                now: Nanos(fields.take()?),
                bus: fields.number()?,
                errno: fields.number::<u32>()?.cast_signed(),
            },
            Kind::Health => Self::Health {
                now: Nanos(fields.take()?),
                bus: fields.number()?,
                health: fields.known(BusHealth::from_number)?,
            },
            Kind::Counters => Self::Counters {
                bus: fields.number()?,
                transmit: fields.number()?,
                receive: fields.number()?,
            },
            Kind::Press => Self::Press { now: Nanos(fields.take()?) },
            Kind::Reset => Self::Reset {
                now: Nanos(fields.take()?),
                seen: TripSeen { trip: TripId(fields.take()?), violations: fields.take()? },
            },
            Kind::ShutDown => Self::ShutDown { now: Nanos(fields.take()?) },
            Kind::End => Self::End { now: Nanos(fields.take()?) },
        };
        fields.end()?;
        Ok(Some(input))
    }
}

/// Where there is nothing to tell.
const NONE: u64 = u64::MAX;

/// That one of these whose number it is.
fn one_of<T: Copy, const N: usize>(all: [T; N], number: u64) -> Option<T> {
    all.get(usize::try_from(number).ok()?).copied()
}

fn place(bus: usize, origin: Origin) -> u64 {
    (bus as u64) << 8 | origin as u64
}

fn read_place(fields: &mut Fields<'_>) -> Result<(usize, Origin), Damaged> {
    let word = fields.take()?;
    let origin = one_of([Origin::Wire, Origin::Local, Origin::Job], word & 0xff).ok_or(Damaged)?;
    Ok((usize::try_from(word >> 8).map_err(|_| Damaged)?, origin))
}

/// Marks an identifier of 29 bits.
const EXTENDED: u64 = 1 << 31;

/// Writes a frame: one word for all but its payload, and the payload.
pub(super) fn write_frame(entry: Entry, frame: &Frame) -> Entry {
    let id = match frame.id() {
        ArbitrationId::Standard(id) => u64::from(id),
        ArbitrationId::Extended(id) => u64::from(id) | EXTENDED,
    };
    let format: u64 = match frame.format() {
        Format::Classic => 0,
        Format::Remote => 1,
        Format::FdBrs => 2,
    };
    let payload = frame.payload();
    let first = entry.with(id | format << 32 | (payload.len() as u64) << 40);
    payload.chunks(8).fold(first, |entry, chunk| {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
        entry.with(u64::from_le_bytes(bytes))
    })
}

/// Reads such a frame.
pub(super) fn read_frame(fields: &mut Fields<'_>) -> Result<Frame, Damaged> {
    let word = fields.take()?;
    let id = u32::try_from(word & 0x1FFF_FFFF).map_err(|_| Damaged)?;
    let id = match word & EXTENDED {
        0 => ArbitrationId::standard(u16::try_from(id).map_err(|_| Damaged)?),
        _ => ArbitrationId::extended(id),
    };
    let length = usize::try_from(word >> 40).map_err(|_| Damaged)?;
    let words = fields.take_some(length.div_ceil(8) as u64)?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let payload = bytes.get(..length).ok_or(Damaged)?;
    match word >> 32 & 0xff {
        0 => Ok(Frame::classic(id, payload)),
        1 => Ok(Frame::remote(id)),
        2 => Ok(Frame::fd(id, payload)),
        _ => Err(Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if any call is read as another than was written.
    #[test]
    fn every_call_survives_its_entry() {
        let now = Nanos(7);
        let arrival = Arrival { earliest: Nanos(5), now };
        let (standard, extended) = (ArbitrationId::standard(0x7FF), ArbitrationId::extended(0x1FFF_FFFF));
        let (classic, fd) = (Frame::classic(standard, &[1, 2, 3]), Frame::fd(extended, &[0x5A; 64]));
        let report = |health, counters| Report { health, counters };
        let cost = Cost {
            allocations: 1,
            minor_faults: 2,
            major_faults: 3,
            voluntary_switches: 4,
            involuntary_switches: 5,
        };
        let tally = Tally { rearms: 1, errors: 2, overtaken: 3 };
        let seen = TripSeen { trip: TripId(3), violations: 4 };
        for input in [
            Input::Confirms { bus: 2, confirms: Confirms::OnTheWire },
            Input::Confirms { bus: 2, confirms: Confirms::Nothing },
            Input::WatchdogReset { first: First::SinceTheMachineStarted, now },
            Input::WatchdogReset { first: First::AfterAnother, now },
            Input::Degraded { bits: 5 },
            Input::Kept { kept: Kept::OnDisk { changes: 9 } },
            Input::Kept { kept: Kept::Refused },
            Input::Start { now },
            Input::Step { now },
            Input::Costs { cost },
            Input::KernelStop { tally, now },
            Input::Attach { generation: Generation(3), pid: 77, now },
            Input::Detach { reason: Reason::FrontDead, now },
            Input::Received { bus: 1, origin: Origin::Wire, frame: classic, arrival },
            Input::Received { bus: 1, origin: Origin::Local, frame: fd, arrival },
            Input::Received { bus: 1, origin: Origin::Job, frame: classic, arrival },
            Input::Received { bus: 0, origin: Origin::Wire, frame: Frame::remote(extended), arrival },
            Input::Confirmed { bus: 15, frame: fd, now },
            Input::Reported { bus: 1, origin: Origin::Wire, report: report(None, None), now },
            Input::Reported {
                bus: 1,
                origin: Origin::Local,
                report: report(Some(BusHealth::Unknown), Some((0, 255))),
                now,
            },
            Input::BusDown { bus: 1, errno: -3, now },
            Input::Health { bus: 1, health: BusHealth::BusOff, now },
            Input::Counters { bus: 1, transmit: 65_535, receive: 2 },
            Input::Press { now },
            Input::Reset { seen, now },
            Input::ShutDown { now },
            Input::End { now },
        ] {
            let entry = input.entry();
            let again = Entry::read(entry.head(), entry.words()).expect("an entry");
            assert_eq!(again, entry);
            assert_eq!(Input::read(&again), Ok(Some(input)));
            let longer = entry.words().len() < 11 && Input::read(&entry.with(1)).is_ok();
            let is_kept = matches!(input, Input::Kept { kept: Kept::Refused });
            assert!(!longer || is_kept, "{input:?} with a word too many");
        }
    }
}
