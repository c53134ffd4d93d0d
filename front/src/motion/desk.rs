//! A motor's desk: one place for a stop and one for a command, so nothing ever queues up. The newest
//! command takes the place of an older one; a stop is always carried out, and before any command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drivers::RevolutionsPerSecond;
use tokio::sync::{Notify, oneshot, watch};

use super::error::MotionError;
use super::grant::Permit;
use super::group::Group;
use super::travel::Leg;

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

/// What is to be done next.
pub enum Errand {
    /// Stop; the number is for [`Desk::announce`].
    Stop(u64),
    /// Carry out a command.
    Move(Box<Job>),
}

#[derive(Default)]
struct Papers {
    stops_asked: u64,
    stops_taken: u64,
    job: Option<Box<Job>>,
}

impl Papers {
    const fn is_empty(&self) -> bool {
        self.stops_asked == self.stops_taken && self.job.is_none()
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
    papers: Mutex<Papers>,
    bell: Notify,
    stopped: watch::Sender<Stopped>,
}

impl Desk {
    /// An empty desk.
    pub fn new() -> Self {
        Self {
            papers: Mutex::default(),
            bell: Notify::new(),
            stopped: watch::Sender::new(Stopped { number: 0, answer: Ok(()) }),
        }
    }

    fn papers(&self) -> MutexGuard<'_, Papers> {
        self.papers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a command down.
    pub fn post(&self, job: Job) {
        let older = self.papers().job.replace(Box::new(job));
        self.bell.notify_one();
        if let Some(mut older) = older {
            older.superseded();
        }
    }

    /// Asks for a stop; the number is for [`Self::stopped`].
    pub fn ask_stop(&self) -> u64 {
        let (number, older) = {
            let mut papers = self.papers();
            papers.stops_asked += 1;
            (papers.stops_asked, papers.job.take())
        };
        self.bell.notify_one();
        if let Some(mut older) = older {
            older.superseded();
        }
        number
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

    /// What is to be done next, a stop before any command.
    pub fn take(&self) -> Option<Errand> {
        let mut papers = self.papers();
        if papers.stops_taken < papers.stops_asked {
            papers.stops_taken = papers.stops_asked;
            return Some(Errand::Stop(papers.stops_taken));
        }
        papers.job.take().map(Errand::Move)
    }

    /// Returns when something lies on the desk.
    pub async fn arrived(&self) {
        while self.papers().is_empty() {
            self.bell.notified().await;
        }
    }
}
