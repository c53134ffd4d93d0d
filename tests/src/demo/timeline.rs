//! What a person sees of the demo: one line for everything that happened, with the time.

use std::io::Write;

use crate::clock::Moment;

/// Where the lines go, and since when time counts.
pub struct Timeline {
    out: Box<dyn Write>,
    start: Moment,
    acts: usize,
}

impl Timeline {
    /// A timeline that begins now.
    #[must_use]
    pub fn new(out: Box<dyn Write>) -> Self {
        Self { out, start: Moment::now(), acts: 0 }
    }

    /// The title of the next act.
    pub fn act(&mut self, title: &str) {
        self.acts += 1;
        let number = self.acts;
        self.line(&format!("\n{number}. {title}"));
    }

    /// Something that happened just now.
    pub fn say(&mut self, text: &str) {
        self.at(Moment::now(), text);
    }

    /// Something that happened at a moment that is known exactly.
    pub fn at(&mut self, moment: Moment, text: &str) {
        let seconds = moment.millis_since(self.start) / 1e3;
        self.line(&format!("{seconds:11.6} s  {text}"));
    }

    /// Text without a time.
    pub fn line(&mut self, text: &str) {
        // A reader who has gone away does not stop the demo.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }
}
