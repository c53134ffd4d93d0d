//! The one task that moves a motor: it alone sends its frames, so nothing can overtake a stop.
//!
//! Every frame that may move the motor passes [`Actor::send_permitted`]: the grant is looked at before
//! and after. A newer errand on the desk ends the present one at its next wait; frames are handed over
//! without waiting, so a step is never cut in the middle.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use drivers::{
    Drive, Frame, FrameList, Power, PowerProof, RevolutionsPerSecond, Setpoint, Standstill, WatchdogSet,
};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until, timeout_at};

use super::Station;
use super::desk::{Aim, Answer, Job, Stage};
use super::enable;
use super::error::MotionError;
use super::feedback::FRESH;
use super::grant::Permit;
use super::line::Line;
use super::mailbox::Errand;
use super::regulator::{self, Regulator};
use super::travel::{Leg, Plan};
use super::wire::SendError;

/// How long stops are repeated while the drive does not prove standstill. The supervisor's own
/// programme, with its harder stages, is for drives that need longer.
const STOP_FOR: Duration = Duration::from_millis(500);
/// How often.
const STOP_REPEAT: Duration = Duration::from_millis(50);
/// How long a full transmit queue is put up with: at 20 ms a refresh, 25 tries.
const BUSY_FOR: Duration = Duration::from_millis(500);

/// The times of the configuration that motion needs.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// How often a set-point is sent again.
    pub refresh: Duration,
    /// How long a command waits for the grant.
    pub grant: Duration,
    /// How long a command waits for the drive to come up.
    pub enable: Duration,
}

/// Why work on a command ended, other than by a newer errand.
#[derive(Debug)]
pub enum Ending {
    /// It has arrived.
    Done,
    /// The grant is gone.
    Lost,
    /// Another motor of the command failed.
    Broken,
    /// Whoever waited for the answer does so no longer.
    Abandoned,
    /// It failed.
    Failed(MotionError),
}

impl From<MotionError> for Ending {
    fn from(error: MotionError) -> Self {
        Self::Failed(error)
    }
}

/// Whether frames got out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of them.
    All,
    /// The transmit queue was full.
    Busy,
}

/// Moves one motor.
pub struct Actor {
    station: Arc<Station>,
    line: Arc<Line>,
    name: String,
    bus: String,
    drive: Drive,
    times: Times,
    /// The enable programme went through since the drive was last made to stop following.
    prepared: bool,
    /// Frames that may move the motor went out, and no stop since.
    engaged: bool,
    busy_since: Option<Instant>,
    /// The grant under which it was driven last.
    held: Option<Permit>,
    /// For a drive that takes currents.
    regulator: Option<Regulator>,
}

impl Actor {
    /// Moves the motor at `station` over `line`.
    pub fn new(
        station: Arc<Station>,
        line: Arc<Line>,
        motor: &config::Motor,
        bus: &str,
        times: Times,
    ) -> Self {
        let regulator = match motor.drive.setpoint {
            Setpoint::Velocity => None,
            Setpoint::Current(law) => Some(Regulator::new(law)),
        };
        Self {
            station,
            line,
            name: motor.name.clone(),
            bus: bus.to_owned(),
            drive: motor.drive.clone(),
            times,
            prepared: false,
            engaged: false,
            busy_since: None,
            held: None,
            regulator,
        }
    }

    /// Carries out one errand after the other, for ever.
    pub async fn run(mut self) {
        let station = Arc::clone(&self.station);
        loop {
            match station.desk.take() {
                None => self.wait().await,
                Some(Errand::Stop(number)) => self.stop(number).await,
                Some(Errand::Move(mut job)) => {
                    let ending = tokio::select! {
                        biased;
                        () = station.desk.arrived() => None,
                        ending = self.carry_out(&mut job) => Some(ending),
                    };
                    match ending {
                        None => station.desk.interrupted(job),
                        Some(ending) => {
                            if !matches!(ending, Ending::Done) {
                                station.desk.note_failed();
                            }
                            self.conclude(job, ending).await;
                        }
                    }
                }
            }
        }
    }

    /// Waits for the next errand. Meanwhile a drive with a watchdog on whoever commands it hears its stop at every
    /// refresh, for as long as the session that drove it holds it: it would otherwise let go of a motor, or report a
    /// fault, only because its driver has it stand still.
    async fn wait(&mut self) {
        let station = Arc::clone(&self.station);
        let mut refresh = interval_at(Instant::now() + self.times.refresh, self.times.refresh);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.is_waited_with() {
            tokio::select! {
                biased;
                () = station.desk.arrived() => return,
                // What does not get out is made good by the next one.
                _ = refresh.tick() => { let _ = self.send_stop(); }
            }
        }
        station.desk.arrived().await;
    }

    /// Whether the drive must hear something while nothing is asked of it.
    fn is_waited_with(&self) -> bool {
        let watches_commands = self.drive.heartbeat.is_none()
            && matches!(self.drive.watchdog.set, WatchdogSet::ByHand | WatchdogSet::ByLanyard(_));
        watches_commands && self.held.as_ref().is_some_and(Permit::holds)
    }

    async fn stop(&mut self, number: u64) {
        let station = Arc::clone(&self.station);
        let mut answer = self.send_stop();
        if answer.is_ok() {
            station.desk.announce(number, Ok(()));
        }
        tokio::select! {
            biased;
            () = station.desk.arrived() => {}
            () = self.repeat_stop(None, &mut answer, || station.desk.announce(number, Ok(()))) => {}
        }
        if answer.is_err() {
            station.desk.announce(number, answer);
        }
    }

    /// Stops the motor if this end of a command calls for it, and gives the answer.
    async fn conclude(&mut self, mut job: Box<Job>, ending: Ending) {
        let station = Arc::clone(&self.station);
        if !matches!(ending, Ending::Done) {
            job.group.break_up();
            if self.engaged {
                let mut answer = self.send_stop();
                tokio::select! {
                    biased;
                    () = station.desk.arrived() => {}
                    // Without the grant the motor is the supervisor's to stop.
                    () = self.repeat_stop(Some(&job.permit), &mut answer, || ()) => {}
                }
            }
        }
        station.set_commanded(None);
        let error = match ending {
            Ending::Done => {
                job.answer(Ok(()));
                return;
            }
            // The motor that failed gives the reason.
            Ending::Broken => MotionError::Superseded,
            Ending::Abandoned => return,
            Ending::Lost => tokio::select! {
                biased;
                () = station.desk.arrived() => job.permit.lost(),
                error = job.permit.explain_loss() => error,
            },
            Ending::Failed(error) => error,
        };
        tracing::info!(motor = %self.name, %error, "motion ended");
        job.answer(Err(error));
    }

    async fn carry_out(&mut self, job: &mut Job) -> Ending {
        if matches!(job.aim, Aim::Leave) {
            return self.leave(job).await;
        }
        self.held = Some(job.permit.clone());
        let prepared = tokio::select! {
            biased;
            () = job.group.broken() => Err(Ending::Broken),
            () = closed(&mut job.reply) => Err(Ending::Abandoned),
            prepared = self.prepare(&job.permit, &job.aim) => prepared,
        };
        if let Err(ending) = prepared {
            return ending;
        }
        if job.stage == Stage::Preparing {
            job.stage = Stage::Ready;
            job.group.ready();
        }
        let ending = match self.await_group(job).await {
            Err(ending) => Err(ending),
            Ok(()) => match job.aim {
                Aim::Turn(speed) => self.turn(job, speed).await,
                Aim::Travel(leg) => self.travel(job, &leg).await,
                Aim::Leave => Ok(()),
            },
        };
        ending.err().unwrap_or(Ending::Done)
    }

    /// Gets the grant and leaves the motor to whoever drives it: nothing is sent, now or later. What was known of its
    /// drive may not hold afterwards.
    async fn leave(&mut self, job: &Job) -> Ending {
        self.held = None;
        self.prepared = false;
        self.engaged = false;
        match job.permit.obtain(self.times.grant).await {
            Ok(()) => {
                self.station.desk.note_started();
                Ending::Done
            }
            Err(error) => error.into(),
        }
    }

    /// Grant, then power, then what else the aim needs.
    async fn prepare(&mut self, permit: &Permit, aim: &Aim) -> Result<(), Ending> {
        permit.obtain(self.times.grant).await?;
        let follows =
            self.station.feedback.power().is_some_and(|power| power.fresh() && power.value == Power::On);
        if !(self.prepared && follows) {
            self.prepared = false;
            self.enable(permit).await?;
            self.prepared = true;
        }
        if matches!(aim, Aim::Travel(_)) {
            self.await_position().await?;
        }
        Ok(())
    }

    /// Goes through the enable programme. Some families clear the drive's faults with it, so that it ends when the drive
    /// reports one that was not there when the command was looked at.
    async fn enable(&mut self, permit: &Permit) -> Result<(), Ending> {
        let programme = self.drive.enable.clone();
        let steps = programme.steps();
        let station = Arc::clone(&self.station);
        let deadline = Instant::now() + self.times.enable;
        for (index, step) in steps.iter().enumerate() {
            let place = enable::Place { step: index + 1, of: steps.len(), until: step.until };
            let mut news = station.feedback.news();
            let since = station.feedback.turn();
            let mut again = interval(enable::RESEND);
            again.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut sent = Sent::Busy;
            loop {
                tokio::select! {
                    biased;
                    _ = again.tick() => {
                        self.no_new_fault(permit)?;
                        if self.send_permitted(permit, &step.frames)? == Sent::All {
                            sent = Sent::All;
                        }
                    }
                    Ok(()) = news.changed() => {}
                    () = sleep_until(deadline) => {
                        let what = place.timed_out(self.times.enable, &station.feedback, &self.drive);
                        return Err(self.trouble(what).into());
                    }
                }
                match place.judge(&station.feedback.since_asking(since, place.request())) {
                    Err(what) => return Err(self.trouble(what).into()),
                    Ok(met) if met && sent == Sent::All => break,
                    Ok(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Checks that the drive reports no fault that began after the command was looked at: no party has acknowledged it.
    fn no_new_fault(&self, permit: &Permit) -> Result<(), MotionError> {
        match self.station.feedback.fault_since() {
            Some(since) if since > permit.judged() => {
                let what = self.station.feedback.describe(&self.drive);
                Err(MotionError::DriveFault { motor: self.name.clone(), what })
            }
            _ => Ok(()),
        }
    }

    async fn await_position(&self) -> Result<(), MotionError> {
        let mut news = self.station.feedback.news();
        let deadline = Instant::now() + FRESH;
        while !self.station.feedback.position().is_some_and(|position| position.fresh()) {
            if !matches!(timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                return Err(self.no_position());
            }
        }
        Ok(())
    }

    /// Holds still until the other motors of the command are ready, too.
    async fn await_group(&mut self, job: &mut Job) -> Result<(), Ending> {
        let mut refresh = interval_at(Instant::now() + self.refresh(), self.refresh());
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = job.group.broken() => return Err(Ending::Broken),
                () = closed(&mut job.reply) => return Err(Ending::Abandoned),
                () = job.group.all_ready() => return Ok(()),
                _ = refresh.tick() => {
                    let still = self.setpoint(RevolutionsPerSecond::ZERO)?;
                    self.send_permitted(&job.permit, &still)?;
                }
            }
        }
    }

    async fn turn(&mut self, job: &mut Job, speed: RevolutionsPerSecond) -> Result<(), Ending> {
        let since = self.station.feedback.turn();
        let mut refresh = interval(self.refresh());
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.next(&mut refresh, job).await?;
            self.still_follows(since)?;
            let frames = self.setpoint(speed)?;
            if self.send_permitted(&job.permit, &frames)? == Sent::All {
                self.station.set_commanded(Some(speed));
                self.station.desk.note_started();
                job.answer(Ok(()));
            }
        }
    }

    async fn travel(&mut self, job: &mut Job, leg: &Leg) -> Result<(), Ending> {
        let since = self.station.feedback.turn();
        let start = self.position()?.value;
        let plan = Plan::new(leg, start, &self.drive, self.refresh());
        let began = Instant::now();
        let mut commanded = RevolutionsPerSecond::ZERO;
        let mut refresh = interval(self.refresh());
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.next(&mut refresh, job).await?;
            self.still_follows(since)?;
            let position = self.position()?;
            let Some(speed) =
                plan.speed(position.value, position.at.elapsed().min(began.elapsed()), commanded)
            else {
                break;
            };
            let frames = self.setpoint(speed)?;
            if self.send_permitted(&job.permit, &frames)? == Sent::All {
                commanded = speed;
                self.station.set_commanded(Some(speed));
                self.station.desk.note_started();
            }
        }
        let mut answer = self.send_stop();
        self.repeat_stop(Some(&job.permit), &mut answer, || ()).await;
        answer.map_err(Ending::Failed)
    }

    /// The next refresh, unless the command is over.
    async fn next(&self, refresh: &mut tokio::time::Interval, job: &mut Job) -> Result<(), Ending> {
        tokio::select! {
            biased;
            () = job.group.broken() => Err(Ending::Broken),
            () = closed(&mut job.reply) => Err(Ending::Abandoned),
            _ = refresh.tick() => Ok(()),
        }
    }

    /// Hands over frames that may move the motor, with the grant seen before and after.
    fn send_permitted(&mut self, permit: &Permit, frames: &FrameList) -> Result<Sent, Ending> {
        if !permit.holds() {
            return Err(Ending::Lost);
        }
        self.engaged = true;
        let sent = self.send(frames.as_slice(), Some(permit));
        if !permit.holds() {
            // What was just sent may have come after the supervisor's stop. When this one does not get
            // out either, the end of the command repeats it.
            let _ = self.send_stop();
            return Err(Ending::Lost);
        }
        match sent {
            Ok(()) => {
                self.busy_since = None;
                Ok(Sent::All)
            }
            Err(SendError::Busy) => {
                let since = *self.busy_since.get_or_insert_with(Instant::now);
                if since.elapsed() < BUSY_FOR {
                    Ok(Sent::Busy)
                } else {
                    Err(self.bus_error(SendError::Busy).into())
                }
            }
            Err(error) => Err(self.bus_error(error).into()),
        }
    }

    /// Hands over the frames of the controlled stop; needs no grant.
    fn send_stop(&mut self) -> Answer {
        let stage = *self.drive.stop.stage(0);
        if stage.proof.power != PowerProof::Any {
            // The stop is proven by a drive that no longer follows.
            self.prepared = false;
        }
        if let Some(regulator) = &mut self.regulator {
            regulator.rest();
        }
        self.send(stage.frames.as_slice(), None).map_err(|error| self.bus_error(error))?;
        self.engaged = false;
        self.busy_since = None;
        self.station.set_commanded(None);
        Ok(())
    }

    /// Repeats the stop until the drive stands still or it is time to give up, or, with a permit, until
    /// its grant is gone. `out` is called when a stop gets out that did not at first.
    async fn repeat_stop(&mut self, permit: Option<&Permit>, answer: &mut Answer, out: impl Fn()) {
        let given_up = |answer: &Answer| permit.is_some_and(|permit| !permit.holds()) && answer.is_ok();
        if given_up(answer) {
            return;
        }
        let station = Arc::clone(&self.station);
        let proof = self.drive.stop.stage(0).proof;
        let deadline = Instant::now() + STOP_FOR;
        let mut news = station.feedback.news();
        let mut seen = station.feedback.turn();
        let mut still = Standstill::NOTHING_SEEN;
        let mut again = interval_at(Instant::now() + STOP_REPEAT, STOP_REPEAT);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(deadline) => return,
                Ok(()) = news.changed() => {
                    let turn = *news.borrow_and_update();
                    let proven = still.observe(&proof, &station.feedback.since(seen));
                    seen = turn;
                    if proven && answer.is_ok() {
                        return;
                    }
                }
                _ = again.tick() => {
                    if given_up(answer) {
                        return;
                    }
                    let sent = self.send_stop();
                    if sent.is_ok() && answer.is_err() {
                        out();
                    }
                    // Once out it is out: a later repetition that finds the queue full changes nothing.
                    if answer.is_err() {
                        *answer = sent;
                    }
                }
            }
        }
    }

    /// Without a permit it is a stop.
    fn send(&self, frames: &[Frame], permit: Option<&Permit>) -> Result<(), SendError> {
        frames.iter().try_for_each(|frame| self.line.send(frame, self.drive.slot, permit))
    }

    /// How often a set-point is sent again: a speed that the front keeps is kept more often.
    fn refresh(&self) -> Duration {
        match self.regulator {
            None => self.times.refresh,
            Some(_) => self.times.refresh.min(regulator::EVERY),
        }
    }

    /// The frames that bring the motor nearer to that speed, or keep it there: for a drive that takes
    /// currents they depend on how fast it turns.
    fn setpoint(&mut self, speed: RevolutionsPerSecond) -> Result<FrameList, MotionError> {
        let refused = |error| MotionError::Speed { motor: self.name.clone(), error };
        let Some(regulator) = &mut self.regulator else {
            return self.drive.velocity(speed).map_err(refused);
        };
        self.drive.may_turn_at(speed).map_err(refused)?;
        let seen = self.station.feedback.velocity();
        let measured = seen.filter(|seen| seen.at.elapsed() <= regulator::STALE).map(|seen| seen.value);
        Ok(self.drive.protocol.current(regulator.step(speed, measured, Instant::now())))
    }

    /// Whether the drive has said nothing else since than that it follows commands.
    fn still_follows(&mut self, since: u64) -> Result<(), MotionError> {
        match self.station.feedback.since(since).power {
            None | Some(Power::On) => Ok(()),
            Some(_) => {
                self.prepared = false;
                let seen = self.station.feedback.describe(&self.drive);
                Err(self.trouble(format!("the drive has stopped following commands by itself ({seen})")))
            }
        }
    }

    fn position(&self) -> Result<super::feedback::Stamped<drivers::Revolutions>, MotionError> {
        self.station.feedback.position().filter(|position| position.fresh()).ok_or_else(|| self.no_position())
    }

    fn no_position(&self) -> MotionError {
        self.trouble(format!(
            "has reported no position for {} ms, and without one a distance cannot be turned; make the drive \
             report it ({})",
            FRESH.as_millis(),
            self.station.feedback.describe(&self.drive)
        ))
    }

    fn trouble(&self, what: String) -> MotionError {
        MotionError::Drive { motor: self.name.clone(), what }
    }

    fn bus_error(&self, error: SendError) -> MotionError {
        let what = match error {
            SendError::Down(what) => what,
            SendError::Busy => format!(
                "the transmit queue has been full for {} ms; a bus without any other node that listens, a \
                 wrong bit rate or missing termination does that (`ip -details -statistics link show`)",
                BUSY_FOR.as_millis()
            ),
        };
        MotionError::Bus { bus: self.bus.clone(), what }
    }
}

/// Returns when nobody waits for the answer any more; never once it was given.
async fn closed(reply: &mut Option<oneshot::Sender<Answer>>) {
    match reply {
        Some(reply) => reply.closed().await,
        None => pending().await,
    }
}
