//! How the kernel's broadcast manager is spoken to: the words that arm a job, shape it, and delete it.
//!
//! Source: Linux 6.1, `net/can/bcm.c` and `include/uapi/linux/can/bcm.h`. A job sends its list one frame at a time, from the
//! beginning again behind the last. Every frame counts, the one that is sent at once when the job starts, too: the first
//! `count` frames follow each other by the first interval, and all others by the second. A second interval of zero
//! ends the job.
//!
//! What lives here: bytes. What must never: which frames are sent, or a socket.

use std::time::Duration;

use drivers::Frame;
use drivers::unattended::{Ending, Job, Layout};

use crate::kernel_frame::KernelFrame;

const TX_SETUP: u32 = 1;
const TX_DELETE: u32 = 2;
const TX_READ: u32 = 3;
/// Both intervals and the count are taken over.
const SETTIMER: u32 = 0x0001;
/// The timer begins now, and the frame at hand is sent at once.
const STARTTIMER: u32 = 0x0002;
/// The frame at hand is the first again.
const TX_RESET_MULTI_IDX: u32 = 0x0200;
/// The frames are `struct canfd_frame`.
const CAN_FD_FRAME: u32 = 0x0800;

/// The words that put a job off, in the order in which they are written.
///
/// One message can say "wait long once, then go on quickly without end", or "the same interval so many times, then
/// end". A job that ends and is quick needs both: the first message starts the timer with the long wait, the second changes
/// what follows and leaves the running timer alone. The job of the first message alone ends as well: a
/// process that dies between the two leaves one slow round.
#[must_use]
pub fn put_off(key: u32, job: &Job) -> Vec<Vec<u8>> {
    let start = SETTIMER | STARTTIMER | TX_RESET_MULTI_IDX;
    let message = |flags, count, first, second| setup(flags, count, (first, second), key, &job.frames);
    let length = count(job.frames.len());
    match job.ending {
        // The marker, which is sent at once, and one wait.
        Ending::Never => vec![message(start, 2, job.wait, job.gap)],
        Ending::After(rounds) => {
            let left = length.saturating_mul(rounds.max(1)).saturating_sub(1);
            vec![
                message(start, length, job.wait, Duration::ZERO),
                message(SETTIMER, left, job.gap, Duration::ZERO),
            ]
        }
    }
}

/// The words that delete a job: the kernel knows it by its key and the layout of its frames.
#[must_use]
pub fn delete(key: u32, job: &Job) -> Vec<u8> {
    about(TX_DELETE, key, job)
}

/// The words that ask whether a job is there: the kernel refuses them (EINVAL) if it is not, and answers otherwise.
#[must_use]
pub fn ask(key: u32, job: &Job) -> Vec<u8> {
    about(TX_READ, key, job)
}

fn about(opcode: u32, key: u32, job: &Job) -> Vec<u8> {
    head(opcode, flag_of(layout_of(&job.frames)), 0, (Duration::ZERO, Duration::ZERO), key, 0)
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn setup(flags: u32, times: u32, intervals: (Duration, Duration), key: u32, frames: &[Frame]) -> Vec<u8> {
    let layout = layout_of(frames);
    let mut message = head(TX_SETUP, flags | flag_of(layout), times, intervals, key, count(frames.len()));
    for frame in frames {
        message.extend(KernelFrame::new(frame).of_a_job().as_bytes());
    }
    message
}

fn layout_of(frames: &[Frame]) -> Layout {
    frames.first().map_or(Layout::Classic, |frame| Layout::of(frame.format()))
}

const fn flag_of(layout: Layout) -> u32 {
    match layout {
        Layout::Classic => 0,
        Layout::Fd => CAN_FD_FRAME,
    }
}

/// `struct bcm_msg_head`, as C lays it out here: the times are `long`s, the frames begin at a multiple of 8.
fn head(
    opcode: u32,
    flags: u32,
    count: u32,
    (first, second): (Duration, Duration),
    key: u32,
    frames: u32,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [opcode, flags, count] {
        bytes.extend(word.to_ne_bytes());
    }
    pad(&mut bytes, size_of::<libc::c_long>());
    for time in [first, second] {
        let seconds = libc::c_long::try_from(time.as_secs()).unwrap_or(libc::c_long::MAX);
        bytes.extend(seconds.to_ne_bytes());
        bytes.extend(libc::c_long::from(time.subsec_micros().cast_signed()).to_ne_bytes());
    }
    for word in [key, frames] {
        bytes.extend(word.to_ne_bytes());
    }
    pad(&mut bytes, 8);
    bytes
}

fn pad(bytes: &mut Vec<u8>, alignment: usize) {
    bytes.resize(bytes.len().next_multiple_of(alignment), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivers::ArbitrationId;
    use drivers::unattended::Turn;

    const MS: Duration = Duration::from_millis(1);

    fn job(frames: &[Frame], wait: Duration, gap: Duration, ending: Ending) -> Job {
        Job { frames: frames.to_vec(), wait, gap, ending, turn: Turn::First }
    }

    fn words(words: &[u32], longs: [u64; 4]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in words {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend([0; 4]);
        for long in longs {
            bytes.extend(long.to_le_bytes());
        }
        bytes
    }

    /// The words as a C program on this machine would write them (64 bits, little-endian).
    #[test]
    #[cfg(all(target_pointer_width = "64", target_endian = "little"))]
    fn words_are_those_of_the_kernel() {
        let stop = Frame::classic(ArbitrationId::standard(0x06D), &[1, 2, 3]);
        let marker = Frame::classic(ArbitrationId::extended(0x1FBF_FFFF), &[]);
        let endless = job(&[marker, stop], 1050 * MS, 2 * MS, Ending::Never);
        let mut frames = Vec::new();
        // Each frame is marked as one of a job in its seventh byte.
        for word in [7_u32, 2, 0x9FBF_FFFF, 0x4C_0000, 0, 0, 0x06D, 0x4C_0003] {
            frames.extend(word.to_le_bytes());
        }
        frames.extend([1, 2, 3, 0, 0, 0, 0, 0]);
        let message = |flags, count, longs| [words(&[1, flags, count], longs), frames.clone()].concat();
        assert_eq!(put_off(7, &endless), [message(0x203, 2, [1, 50_000, 0, 2_000])]);
        let ends = job(&[marker, stop], 1050 * MS, 2 * MS, Ending::After(5));
        let start = message(0x203, 2, [1, 50_000, 0, 0]);
        // Without STARTTIMER (2) and without going back to the marker: nine of the ten frames are left.
        let shape = message(0x001, 9, [0, 2_000, 0, 0]);
        assert_eq!(put_off(7, &ends), [start, shape]);
        let delete = delete(7, &ends);
        assert_eq!(delete[..12], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!((delete.len(), delete[48]), (56, 7));
        let ask = ask(7, &ends);
        assert_eq!((ask[0], &ask[1..]), (3, &delete[1..]));
    }

    /// Fails if a request is sent as a data frame: that would be a command.
    #[test]
    fn remote_frames_stay_remote() {
        let job = job(&[Frame::remote(ArbitrationId::standard(0x123))], 50 * MS, MS, Ending::Never);
        let message = &put_off(0, &job)[0];
        assert_eq!(message[message.len() - 16..][..4], 0x4000_0123_u32.to_ne_bytes());
    }

    #[test]
    fn fd_frames_are_marked_and_have_room_for_64_bytes() {
        let frame = Frame::fd(ArbitrationId::standard(0x123), &[9; 12]);
        let message = &put_off(0, &job(&[frame], 50 * MS, MS, Ending::Never))[0];
        assert_eq!(message.len(), head(0, 0, 0, (MS, MS), 0, 0).len() + 72);
        assert_eq!(message[4..8], 0xA03_u32.to_ne_bytes());
        let frame = &message[message.len() - 72..];
        assert_eq!(frame[4..8], [12, 1, 0x4C, 0]);
        assert_eq!(frame[8..20], [9; 12]);
    }
}
