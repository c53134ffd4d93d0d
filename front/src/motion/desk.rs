//! A motor's desk: its [`Mailbox`], and the waits around it. Nothing ever queues up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drivers::RevolutionsPerSecond;
use tokio::sync::{Notify, oneshot, watch};

use super::error::MotionError;
use super::grant::Permit;
use super::group::Group;
use super::mailbox::{AskedStop, Errand, Mailbox, Refused};
use super::travel::Leg;
use crate::order::Origin;

/// What a command wants, in the drive's own direction.
#[derive(Clone, Copy, Debug)]
pub enum Aim {
    /// Turn at this speed until told otherwise.
    Turn(RevolutionsPerSecond),
    /// Turn so far.
    Travel(Leg),
    /// Nothing: somebody else drives the motor for the session.
    Leave,
}

/// The answer to a command.
pub type Answer = Result<(), MotionError>;

/// One command for one motor.
pub struct Job {
    /// Who gave it, and whether that one may.
    pub permit: Permit,
    /// What it wants.
    pub aim: Aim,
    /// The other motors of the command.
    pub group: Arc<Group>,
    /// Where the answer goes; `None` once answered.
    pub reply: Option<oneshot::Sender<Answer>>,
    /// How far it is.
    pub stage: Stage,
}

/// How far a command is, as the other motors of it know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The motor is not granted and enabled yet.
    Preparing,
    /// It is, and the others were told so.
    Ready,
}

impl Job {
    /// Answers, if that has not happened yet; says whether it did.
    pub fn answer(&mut self, answer: Answer) -> bool {
        // Nobody may be listening any more, which is their choice.
        self.reply.take().map(|reply| reply.send(answer)).is_some()
    }

    /// Another command or a stop has taken the motor. Before its answer a command is all or nothing;
    /// after it each motor is on its own.
    pub fn superseded(&mut self) {
        if self.answer(Err(MotionError::Superseded)) {
            self.group.break_up();
        }
    }
}

/// The last stop that was carried out, and how that went.
#[derive(Clone, Debug)]
struct Stopped {
    number: u64,
    answer: Answer,
}

/// A motor's desk.
pub struct Desk {
    mailbox: Mutex<Mailbox<Box<Job>>>,
    bell: Notify,
    stopped: watch::Sender<Stopped>,
}

impl Desk {
    /// An empty desk.
    pub fn new() -> Self {
        Self {
            mailbox: Mutex::new(Mailbox::new()),
            bell: Notify::new(),
            stopped: watch::Sender::new(Stopped { number: 0, answer: Ok(()) }),
        }
    }

    fn mailbox(&self) -> MutexGuard<'_, Mailbox<Box<Job>>> {
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command down. `hold`: for how long after a stop its party moves the motor over no other connection.
    ///
    /// # Errors
    ///
    /// When the order in which commands and stops arrived is against it: with the command, and why.
    pub fn post(&self, origin: &Origin, job: Job, hold: Duration) -> Result<(), (Box<Job>, Refused)> {
        let older = self.mailbox().post(origin, Box::new(job), hold)?;
        self.bell.notify_one();
        if let Some(mut older) = older {
            older.superseded();
        }
        Ok(())
    }

    /// Asks for a stop at some party's wish; the number is for [`Self::stopped`]. `None`: a command that was sent after it
    /// is being carried out already.
    pub fn ask_stop(&self, origin: &Origin) -> Option<u64> {
        let asked = self.mailbox().ask_stop(origin);
        match asked {
            AskedStop::Overtaken => None,
            AskedStop::Wait(number, voided) => {
                self.stop_is_asked(voided);
                Some(number)
            }
        }
    }

    /// Asks for a stop that this program has reason for; the number is for [`Self::stopped`].
    pub fn ask_own_stop(&self) -> u64 {
        let (number, voided) = self.mailbox().ask_own_stop();
        self.stop_is_asked(voided);
        number
    }

    fn stop_is_asked(&self, voided: Option<Box<Job>>) {
        self.bell.notify_one();
        if let Some(mut voided) = voided {
            voided.superseded();
        }
    }

    /// Returns when that stop has been carried out.
    pub async fn stopped(&self, number: u64) -> Answer {
        match self.stopped.subscribe().wait_for(|stopped| stopped.number >= number).await {
            Ok(stopped) => stopped.answer.clone(),
            // The sender lives in `self`.
            Err(_) => Err(MotionError::Superseded),
        }
    }

    /// Tells those who wait for a stop up to that number how it went.
    pub fn announce(&self, number: u64, answer: Answer) {
        self.stopped.send_replace(Stopped { number, answer });
    }

    /// Notes that the command that is being carried out has told the motor something.
    pub fn note_started(&self) {
        self.mailbox().note_started();
    }

    /// Notes that the command that was being carried out has failed.
    pub fn note_failed(&self) {
        self.mailbox().note_failed();
    }

    /// Lets a command wait again that was interrupted by a stop which was sent before it; any other is superseded.
    pub fn interrupted(&self, job: Box<Job>) {
        let superseded = self.mailbox().put_back(job);
        if let Some(mut superseded) = superseded {
            superseded.superseded();
        }
    }

    /// Gives out what is to be done next, a stop before any command. What was given out before is over.
    pub fn take(&self) -> Option<Errand<Box<Job>>> {
        self.mailbox().take()
    }

    /// Returns when something lies on the desk.
    pub async fn arrived(&self) {
        while self.mailbox().is_empty() {
            self.bell.notified().await;
        }
    }
}
