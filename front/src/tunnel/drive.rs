//! A session for as long as a link drives.
//!
//! It begins with the first command, which waits until every motor behind the target is granted. A little before the
//! supervisor's own deadline the link is cut by this side, so that the target is closed before the stop goes out: what a
//! target sends by itself must not come after it. The session is then left alone, and the supervisor finds it silent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use config::{BeatOf, Speaks};
use shm_proto::{MotorIndex, Nanos, SessionId, Window};
use tokio::time::{Instant, Sleep};
use tracing::info;

use super::content::{Content, Fault};
use super::reach::{Refusal, Standing};
use super::targets::Pinned;
use crate::access::Caller;
use crate::motion::{Motion, MotionError, Notes, Permit};
use crate::order::Origin;
use crate::sessions::{Cause, Hold, Peer, Sessions, Use};

/// The part of a window by which the link is cut before its end. Two ticks of the async runtime's clock at the
/// shortest window, which leaves a client seven eighths of it.
const LEAD_PART: u64 = 8;
/// Longest lead: closing a socket takes microseconds, being awake for it some milliseconds.
const LONGEST_LEAD: u64 = 20_000_000;
/// Over which time a minimum rate is counted.
const RATE_OVER: u64 = 1_000_000_000;
/// How often the grant is looked at while nothing comes: the supervisor's own tick.
const LOOK: Duration = Duration::from_millis(5);

/// What links drive with.
#[derive(Clone)]
pub struct Means {
    /// All sessions.
    pub sessions: Arc<Sessions>,
    /// The grants.
    pub motion: Arc<Motion>,
}

impl Means {
    /// How a link that does not drive stands to these motors.
    #[must_use]
    pub fn standing(&self, motors: &[MotorIndex]) -> Standing {
        if self.sessions.has_any(motors) { Standing::Taken } else { Standing::Free }
    }

    /// Notes that a client has taken note of a stop, by asking for standing still, or of a drive's fault, by clearing it.
    pub fn acknowledge(&self, origin: &Origin, content: &Content) {
        self.motion.acknowledge(origin, &content.resting, Notes::Stop);
        self.motion.acknowledge(origin, &content.cleared, Notes::StopAndDriveFault);
    }
}

/// Why a link is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its client has closed it.
    ClientLeft,
    /// Its target has closed it.
    TargetLeft,
    /// Its listener is closed.
    Closed,
    /// Its client was silent.
    Silent(Window),
    /// Its client sent too seldom.
    Slow {
        /// Sends in the last second that drove its motors.
        beats: u32,
        /// Wanted.
        least: u32,
    },
    /// Its client asked a motor for more than it may do; in words.
    TooFast(String),
    /// Its target cannot be reached any more; in words.
    TargetLost(String),
    /// Its session ended, or its motors were taken away; in words.
    Lost(String),
    /// It may not drive, its target cannot be reached, or it has sent what cannot be; in words.
    Refused(String),
}

impl End {
    /// Whether it is one after which nobody should go on as if nothing had happened.
    #[must_use]
    pub const fn is_trip(&self) -> bool {
        match self {
            Self::Silent(_) | Self::Slow { .. } | Self::TooFast(_) | Self::TargetLost(_) | Self::Lost(_) => {
                true
            }
            Self::ClientLeft | Self::TargetLeft | Self::Closed | Self::Refused(_) => false,
        }
    }

    /// The same as the end of a session. Whether a client that has closed its connection meant to, or was killed, its
    /// bytes do not tell.
    const fn cause(&self) -> Cause {
        match self {
            Self::ClientLeft => Cause::ClientLost,
            Self::TargetLeft | Self::TargetLost(_) => Cause::TargetLost,
            Self::Closed => Cause::ListenerClosed,
            Self::Silent(_) => Cause::Silent,
            Self::Slow { .. } => Cause::NoProgress,
            // A session that was lost is over already.
            Self::Lost(_) | Self::TooFast(_) | Self::Refused(_) => Cause::CutOff,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientLeft => f.write_str("its client closed it"),
            Self::TargetLeft => f.write_str("its target closed it"),
            Self::Closed => f.write_str("its listener was closed"),
            Self::Silent(window) => {
                write!(f, "its client was silent for its window of {} ms", window.0 / 1_000_000)
            }
            Self::Slow { beats, least } => {
                write!(f, "its client drove its motors {beats} times in a second, and min_rate wants {least}")
            }
            Self::TooFast(why) => write!(f, "its client asked for too much: {why}"),
            Self::TargetLost(why) => write!(f, "its target is lost: {why}"),
            Self::Lost(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

impl From<Fault> for End {
    /// Bytes that must not go on, and after which nothing more does.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refusal @ Refusal::TooFast { .. }) => Self::TooFast(refusal.to_string()),
            other => Self::Refused(other.to_string()),
        }
    }
}

/// What drove the motors in the second that runs.
#[derive(Debug)]
struct Rate {
    least: u32,
    since: Nanos,
    beats: u32,
}

/// A link that drives. Dropped, it closes its session: what it drives is stopped.
pub struct Driving {
    means: Means,
    caller: Caller,
    id: SessionId,
    hold: Hold,
    permits: Vec<Permit>,
    target: Arc<config::TunnelTarget>,
    motors: Vec<MotorIndex>,
    /// That a command is under way: for good, unless progress is expected.
    under_way: Option<Use>,
    window: Window,
    last: Nanos,
    rate: Option<Rate>,
    leaves_it: bool,
    /// Why its session will be closed.
    cause: Cause,
}

/// Why motors are not to be had, and what a client of a link can do about it.
fn explain(error: &MotionError, speaks: &Speaks) -> String {
    let how = match (error, speaks) {
        (MotionError::StopFirst { .. } | MotionError::DriveFault { .. }, Speaks::Plain) => {
            "; over a link of plain bytes nothing tells a stop: run `lanyard reset`"
        }
        (MotionError::DriveFault { .. }, Speaks::Socketcand { .. } | Speaks::Cannelloni) => {
            "; over this link: the drive's own frame that clears its errors, or where it has none one that stops it"
        }
        _ => "",
    };
    format!("{error}{how}")
}

/// The motors behind a target.
pub fn motors_of(target: &config::TunnelTarget) -> Vec<MotorIndex> {
    target.motors.iter().filter_map(|place| u16::try_from(*place).ok()).map(MotorIndex).collect()
}

impl Driving {
    /// Opens a session and waits for the motors behind the target. `origin`: the command that is the first.
    ///
    /// # Errors
    ///
    /// When they are not to be had, in words.
    pub async fn begin(
        means: &Means,
        caller: &Caller,
        origin: &Origin,
        peer: Peer,
        pinned: &Pinned,
    ) -> Result<Self, End> {
        let target = Arc::clone(&pinned.target);
        let window = [Some(target.window), caller.window].into_iter().flatten().min();
        let window = crate::sessions::window(window.unwrap_or(target.window));
        let refused = |why: String| End::Refused(format!("it may not drive: {why}"));
        let opened = means.sessions.open(&caller.entity, peer, window);
        let id = opened.map_err(|error| refused(error.to_string()))?.id;
        let last = Nanos::now();
        let motors = motors_of(&target);
        let hold = match means.sessions.hold(&caller.entity, id) {
            Ok(hold) => hold,
            Err(error) => {
                drop(means.sessions.close(&caller.entity, id));
                return Err(refused(error.to_string()));
            }
        };
        let rate = target.min_rate.map(|least| Rate { least, since: last, beats: 0 });
        let mut driving = Self {
            means: means.clone(),
            caller: caller.clone(),
            id,
            permits: means.motion.permits(&hold, &motors),
            hold,
            target,
            motors,
            under_way: None,
            window,
            last,
            rate,
            leaves_it: false,
            // Until it has begun it can only be refused.
            cause: Cause::CutOff,
        };
        driving.note_command().map_err(&refused)?;
        // From here on dropping it closes the session.
        let claimed = means.motion.claim(&driving.hold, origin, &driving.motors).await;
        claimed.map_err(|error| refused(explain(&error, &driving.target.speaks)))?;
        info!("tunnel: a link to \"{}\" drives under session {id}", driving.target.name);
        Ok(driving)
    }

    fn note_command(&mut self) -> Result<(), String> {
        let resource = self.target.resource();
        let used = self.means.sessions.use_resource(&self.hold, &resource, &self.motors);
        let used = used.map_err(|error| error.to_string())?;
        // Progress is counted from the end of a command: that of a tunnel ends as soon as it has begun.
        self.under_way = self.target.rules.progress.is_none().then_some(used);
        Ok(())
    }

    /// Something has come from the client. It may go on to the target if this is `Ok`.
    ///
    /// # Errors
    ///
    /// When the link is over.
    pub fn heard(&mut self, content: &Content, now: Nanos) -> Result<(), End> {
        // Bytes that come late are as good as none: they must not revive what is over.
        self.look(now)?;
        let beats = match self.target.beat {
            BeatOf::Bytes => content.beats,
            BeatOf::Commands => content.commands > 0,
            BeatOf::Motion => content.motion > 0,
        };
        if beats {
            self.means.sessions.beat(&self.caller.entity, self.id).map_err(|_| self.lost())?;
            self.last = now;
        }
        // Whatever counts as a beat: these two ask for a driver.
        if content.motion > 0 {
            if let Some(rate) = &mut self.rate {
                rate.beats = rate.beats.saturating_add(1);
            }
            if self.target.rules.progress.is_some() {
                self.note_command().map_err(End::Lost)?;
            }
        }
        Ok(())
    }

    /// Whether it may go on driving.
    ///
    /// # Errors
    ///
    /// When the link is over.
    pub fn look(&mut self, now: Nanos) -> Result<(), End> {
        if now >= self.deadline() {
            return Err(End::Silent(self.window));
        }
        if !self.permits.iter().all(Permit::holds) {
            return Err(self.lost());
        }
        let Some(rate) = &mut self.rate else { return Ok(()) };
        if now.since(rate.since) < RATE_OVER {
            return Ok(());
        }
        let (beats, least) = (rate.beats, rate.least);
        (rate.since, rate.beats) = (now, 0);
        if beats < least { Err(End::Slow { beats, least }) } else { Ok(()) }
    }

    /// Returns when it may go on no more, if it has not been heard before. `alarm` is set anew by each poll.
    pub fn poll_end(&mut self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<End> {
        loop {
            let now = Nanos::now();
            if let Err(end) = self.look(now) {
                return Poll::Ready(end);
            }
            alarm.as_mut().reset(Instant::now() + self.rest(now));
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// When the link is cut, unless its client is heard before.
    fn deadline(&self) -> Nanos {
        let lead = (self.window.0 / LEAD_PART).min(LONGEST_LEAD);
        self.last.after(self.window.0 - lead)
    }

    /// How long nothing has to be looked at, if nothing comes.
    fn rest(&self, now: Nanos) -> Duration {
        Duration::from_nanos(self.deadline().since(now)).min(LOOK)
    }

    /// Why it may drive no more.
    fn lost(&self) -> End {
        let why = self.means.sessions.why(&self.caller.entity, self.id);
        let why = why.map(|why| format!("its session is over: {why}"));
        let lost =
            || self.permits.iter().find(|permit| !permit.holds()).map(|permit| permit.lost().to_string());
        End::Lost(why.or_else(lost).unwrap_or_else(|| "its session is over".to_owned()))
    }

    /// The link is cut, and its target is closed.
    pub fn end(mut self, why: &End) {
        // Whoever was silent is for the supervisor to find, which knows silence from a goodbye.
        self.leaves_it = matches!(why, End::Silent(_));
        self.cause = why.cause();
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        if !self.leaves_it {
            // It may be over already.
            drop(self.means.sessions.close_for(&self.caller.entity, self.id, self.cause));
        }
    }
}
