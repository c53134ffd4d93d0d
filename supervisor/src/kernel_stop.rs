//! The kernel-armed stop: jobs in the kernel that send the stops when this process no longer puts them off.
//!
//! Each bus has jobs of CAN_BCM, the kernel's broadcast manager: a list of frames, the first a *marker* that no
//! drive hears, the others the first stop stage of every motor. Arming a job sends the marker at once; should
//! nobody arm it again for `kernel_stop`, a timer of the kernel sends the stops, one after the other and then
//! from the beginning, without this process: it may be stopped, starved, stuck in a loop, or dead.
//!
//! What lives here: the jobs, and the real-time thread's part: one non-blocking `write` for each. What must
//! never: anything that could keep a drive's own watchdog content while this process hangs.
//!
//! What it cannot do. The kernel sends with the queue priority of motion frames, tries again only one round
//! later when the queue is full, and knows nothing of proof or of later stages. Its timers run on the CPU that
//! armed them, on a kernel with PREEMPT_RT in a thread of low priority, on one before 6.5 in such a thread when
//! there is much to do: a *busy loop* of the real-time thread then keeps the kernel from sending, too. So such
//! a loop is ended by the kernel's tick ([`limit_loops`]), and then the timers run.
//!
//! Source: Linux 6.1, `net/can/bcm.c` and `include/uapi/linux/can/bcm.h`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use config::{Config, Motor};
use drivers::frame::MAX_PAYLOAD;
use drivers::{ArbitrationId, Drive, Format, Frame, marker};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::write;
use shm_proto::Nanos;

use crate::{bus, sys};

/// Frames the kernel takes for one job (MAX_NFRAMES).
const MOST_FRAMES: usize = 256;
/// How long a round over all frames of a bus should take: drives whose frame was lost get it again as soon as
/// the supervisor itself would send it (20 ms) or earlier.
const ROUND: Duration = Duration::from_millis(10);
/// No frame faster than this after another: the longest frame of a classic bus at 125 kbit/s takes 1.08 ms, and
/// what does not fit on the bus would fill the queue that it is to leave.
const SHORTEST_GAP: Duration = Duration::from_millis(1);
/// A job is put off once in this time. More often would only load the bus: each time sends a marker, which is
/// 80 bits on a bus with ODrives, 0.64 ms at 125 kbit/s.
const LONGEST_PERIOD: Duration = Duration::from_millis(10);
/// It is put off at least this many times within `kernel_stop`, unless the tick is longer: a few may be late.
const TIMES: u32 = 5;

/// The fuse: has the kernel end this process when its real-time thread has been busy for `kernel_stop` without
/// sleeping once. SIGXCPU comes first, and its handler sends the stops (`last_words`).
///
/// The limit is counted in ticks of the kernel (up to 10 ms each) and passed only with one more than it says;
/// with four fifths of 50 ms the signal comes after 44 to 60 ms.
///
/// # Errors
///
/// When a lower hard limit is in force that it would have to raise.
pub fn limit_loops(kernel_stop: Duration) -> io::Result<()> {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ok(setrlimit(Resource::RLIMIT_RTTIME, micros(kernel_stop * 4 / 5), micros(kernel_stop * 2))?)
}

/// How the kernel is spoken to (linux/can/bcm.h).
mod bcm {
    pub const TX_SETUP: u32 = 1;
    pub const TX_DELETE: u32 = 2;
    /// Both intervals and the count are taken over.
    pub const SETTIMER: u32 = 0x0001;
    /// The timer begins now, and the frame at hand is sent at once.
    pub const STARTTIMER: u32 = 0x0002;
    /// The frame at hand is the first again.
    pub const TX_RESET_MULTI_IDX: u32 = 0x0200;
    /// The frames are `struct canfd_frame`.
    pub const CAN_FD_FRAME: u32 = 0x0800;
    /// How many of the frames follow each other by the first interval. The one sent at once counts, too, so
    /// two leave one first interval to wait.
    pub const COUNT: u32 = 2;
}

/// How the frames of a job are laid out: a job has one form only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Classic,
    Fd,
}

impl Form {
    fn of(format: Format) -> Self {
        match format {
            Format::Classic | Format::Remote => Self::Classic,
            Format::FdBrs => Self::Fd,
        }
    }

    fn flags(self) -> u32 {
        match self {
            Self::Classic => 0,
            Self::Fd => bcm::CAN_FD_FRAME,
        }
    }

    /// Bytes of a frame's data.
    fn room(self) -> usize {
        match self {
            Self::Classic => 8,
            Self::Fd => MAX_PAYLOAD,
        }
    }

    fn marker(self, id: ArbitrationId) -> Frame {
        match self {
            Self::Classic => Frame::classic(id, &[]),
            Self::Fd => Frame::fd(id, &[]),
        }
    }
}

/// One job, as the words it is armed and deleted with.
#[derive(Debug)]
struct Job {
    bus: usize,
    setup: Vec<u8>,
    delete: Vec<u8>,
}

/// A socket whose interface is gone is left alone until it is connected to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Connected,
    Lost,
}

/// One bus: its socket, which all its jobs belong to.
#[derive(Debug)]
struct Line {
    socket: OwnedFd,
    link: Link,
}

/// How often the jobs were put off, and how often the kernel refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times that all jobs of buses that are there were put off.
    pub rearms: u64,
    /// Jobs that the kernel refused to take.
    pub errors: u64,
}

/// The jobs of all buses.
#[derive(Debug)]
pub struct KernelStop {
    lines: Vec<Line>,
    jobs: Vec<Job>,
    period: u64,
    due: Nanos,
    tally: Tally,
}

impl KernelStop {
    /// No jobs: for a kernel that cannot, or a benchmark.
    #[must_use]
    pub fn none() -> Self {
        Self { lines: Vec::new(), jobs: Vec::new(), period: 0, due: Nanos::ZERO, tally: Tally::default() }
    }

    /// Opens a socket for every bus and builds its jobs. Nothing is armed yet.
    ///
    /// # Errors
    ///
    /// When the kernel has no broadcast manager, or an interface is not there; the text says what to do.
    pub fn open(config: &Config) -> Result<Self, String> {
        let mut stop = Self::none();
        stop.period = nanos(period(config.supervisor.kernel_stop, config.supervisor.tick));
        for index in 0..config.buses.len() {
            stop.lines.push(Line { socket: socket_of(config, index)?, link: Link::Connected });
            stop.jobs.extend(jobs_of(config, index)?);
        }
        Ok(stop)
    }

    /// Whether there is anything to arm.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Second descriptors of the sockets, by bus.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn duplicate(&self) -> io::Result<Vec<OwnedFd>> {
        self.lines.iter().map(|line| line.socket.try_clone()).collect()
    }

    /// Arms the jobs, or puts them off, if it is time to. `None`: it was not.
    ///
    /// What the kernel refuses is tried again in the next pass.
    pub fn put_off(&mut self, now: Nanos) -> Option<Tally> {
        if self.jobs.is_empty() || now < self.due {
            return None;
        }
        let errors = self.tally.errors;
        for job in &self.jobs {
            let Some(line) = self.lines.get_mut(job.bus) else { continue };
            if line.link == Link::Lost {
                continue;
            }
            if let Err(error) = write(&line.socket, &job.setup) {
                self.tally.errors += 1;
                // The interface was removed and the socket belongs to none. Housekeeping connects it to the
                // next one; until then it is not touched, lest this thread wait for the socket's lock.
                if matches!(error, Errno::ENOTCONN | Errno::ENODEV | Errno::ENXIO) {
                    line.link = Link::Lost;
                }
            }
        }
        if self.tally.errors == errors {
            self.tally.rearms += 1;
            self.due = now.after(self.period);
        }
        Some(self.tally)
    }

    /// The interface of a bus works again, perhaps another one under its name: its jobs are armed at once.
    pub fn restore(&mut self, bus: usize) {
        if let Some(line) = self.lines.get_mut(bus) {
            line.link = Link::Connected;
            self.due = Nanos::ZERO;
        }
    }

    /// Deletes the jobs. Only for a clean end: every motor is proven to stand still.
    pub fn disarm(&mut self) {
        for job in &self.jobs {
            if let Some(line) = self.lines.get(job.bus) {
                // A job that is not there, or whose interface is gone, sends nothing either.
                let _ = write(&line.socket, &job.delete);
            }
        }
    }
}

/// How long at least from one putting off to the next. A little less than is meant, because the loop comes round
/// with the ticks: a tick that is a microsecond early must count, or it would only be the next one.
fn period(wait: Duration, tick: Duration) -> Duration {
    let meant = LONGEST_PERIOD.min(wait / TIMES);
    meant - (tick / 2).min(meant / 4)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn socket_of(config: &Config, index: usize) -> Result<OwnedFd, String> {
    let bus = &config.buses[index];
    let explain = |error: io::Error| {
        let hint = match error.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => {
                "; load the kernel module that does it: modprobe can-bcm (and name it in \
                 /etc/modules-load.d/lanyard.conf)"
            }
            _ => "",
        };
        format!("bus \"{}\": CAN_BCM on interface \"{}\": {error}{hint}", bus.name, bus.interface)
    };
    let socket = sys::bcm_socket().map_err(explain)?;
    let gone = || io::Error::from_raw_os_error(libc::ENODEV);
    let number = bus::interface_number(&bus.interface).ok_or_else(gone).map_err(explain)?;
    sys::connect_can(socket.as_fd(), number).map_err(explain)?;
    Ok(socket)
}

/// The jobs of one bus of a configuration.
fn jobs_of(config: &Config, index: usize) -> Result<Vec<Job>, String> {
    let motors: Vec<&Motor> = config.motors.iter().filter(|motor| motor.is_on(index)).collect();
    jobs(index, &config.buses[index].name, &motors, config.supervisor.kernel_stop)
}

/// The jobs of one bus.
fn jobs(bus: usize, name: &str, motors: &[&Motor], wait: Duration) -> Result<Vec<Job>, String> {
    let drives = motors.iter().map(|motor| &motor.drive);
    let Some(marker) = marker::unheard(drives.clone()) else {
        return Err(format!(
            "bus \"{name}\": its drives hear every identifier there is, so there is none for the frame that puts \
             the kernel's stops off; spread them over two buses"
        ));
    };
    let lists = lists(drives, marker);
    let gap = gap(lists.iter().map(Vec::len).sum(), lists.len());
    Ok((0..)
        .zip(&lists)
        .map(|(key, list)| Job { bus, setup: setup(key, list, wait, gap), delete: delete(key, list) })
        .collect())
}

/// The frames of each job: the marker, then the first stop stage of as many drives as fit. A drive's frames
/// stay together in their order.
fn lists<'a>(drives: impl Iterator<Item = &'a Drive>, marker: ArbitrationId) -> Vec<Vec<Frame>> {
    let mut lists: Vec<Vec<Frame>> = Vec::new();
    for drive in drives {
        let frames = drive.stop.stage(0).frames;
        let frames = frames.as_slice();
        let form = Form::of(drive.format);
        let fits = |list: &&mut Vec<Frame>| {
            Form::of(list[0].format()) == form && list.len() + frames.len() <= MOST_FRAMES
        };
        match lists.iter_mut().find(fits) {
            Some(list) => list.extend(frames),
            None => lists.push([&[form.marker(marker)], frames].concat()),
        }
    }
    lists
}

/// The time between two frames of a job, for a bus with so many frames in so many jobs, which send side by side.
fn gap(frames: usize, jobs: usize) -> Duration {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX).max(1);
    (ROUND / count(frames)).clamp(SHORTEST_GAP, ROUND) * count(jobs)
}

/// The words that arm a job or put it off.
fn setup(key: u32, frames: &[Frame], wait: Duration, gap: Duration) -> Vec<u8> {
    let form = form_of(frames);
    let flags = bcm::SETTIMER | bcm::STARTTIMER | bcm::TX_RESET_MULTI_IDX | form.flags();
    let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    let mut message = head(bcm::TX_SETUP, flags, bcm::COUNT, (wait, gap), key, count);
    for frame in frames {
        push_frame(&mut message, form, frame);
    }
    message
}

/// The words that delete a job: the kernel knows it by its key and the form of its frames.
fn delete(key: u32, frames: &[Frame]) -> Vec<u8> {
    head(bcm::TX_DELETE, form_of(frames).flags(), 0, (Duration::ZERO, Duration::ZERO), key, 0)
}

fn form_of(frames: &[Frame]) -> Form {
    frames.first().map_or(Form::Classic, |frame| Form::of(frame.format()))
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

/// `struct can_frame` or `struct canfd_frame`: identifier with flags, length, three more bytes, data.
fn push_frame(bytes: &mut Vec<u8>, form: Form, frame: &Frame) {
    let id = match frame.id() {
        ArbitrationId::Standard(id) => u32::from(id),
        ArbitrationId::Extended(id) => id | libc::CAN_EFF_FLAG,
    };
    let (id, flags) = match frame.format() {
        Format::Classic => (id, 0),
        Format::Remote => (id | libc::CAN_RTR_FLAG, 0),
        // CANFD_BRS: the data goes at the higher bit rate.
        Format::FdBrs => (id, 1),
    };
    let payload = frame.payload();
    let length = payload.len().min(form.room());
    bytes.extend(id.to_ne_bytes());
    bytes.extend([u8::try_from(length).unwrap_or(0), flags, 0, 0]);
    bytes.extend(&payload[..length]);
    bytes.resize(bytes.len() + form.room() - length, 0);
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;
    use drivers::{AfterStop, RevolutionsPerSecond, Settings, Value, registry};
    use nix::sys::resource::getrlimit;

    fn drive(family: &str, keys: &[(&str, Value)]) -> Drive {
        let mut settings = Settings::default();
        for (key, value) in keys {
            settings.insert(*key, value.clone());
        }
        let common = registry::Common {
            after: AfterStop::Hold,
            standstill: None,
            max_speed: RevolutionsPerSecond(5.0),
        };
        registry::build(registry::family(family).unwrap(), &settings, &common).unwrap()
    }

    fn odrive(node: i64) -> Drive {
        drive("odrive", &[("node", Value::Integer(node)), ("firmware", Value::Text("0.6".to_owned()))])
    }

    fn arm(node: i64) -> Drive {
        drive(
            "cia402",
            &[
                ("node", Value::Integer(node)),
                ("transport", Value::Text("pdo".to_owned())),
                ("counts_per_rev", Value::Integer(1000)),
            ],
        )
    }

    const MARKER: ArbitrationId = ArbitrationId::Standard(0x7EF);
    const MS: Duration = Duration::from_millis(1);

    /// Fails if a job does not begin with what means nothing: arming it would stop a motor.
    #[test]
    fn every_job_begins_with_the_marker_and_holds_every_stop() {
        let drives: Vec<Drive> = (0..63).map(odrive).chain((1..=126).map(arm)).collect();
        let lists = lists(drives.iter(), MARKER);
        assert!(lists.iter().all(|list| list[0] == Frame::classic(MARKER, &[]) && list.len() <= MOST_FRAMES));
        let sent: Vec<Frame> = lists.iter().flat_map(|list| list[1..].to_vec()).collect();
        let wanted: Vec<Frame> =
            drives.iter().flat_map(|drive| drive.stop.stage(0).frames.as_slice().to_vec()).collect();
        assert_eq!(sent, wanted, "in order, nothing twice, nothing missing");
        assert_eq!(lists.len(), 2, "(63 + 126) * 2 frames are too many for one job");
    }

    #[test]
    fn classic_and_fd_frames_have_jobs_of_their_own() {
        let mut fd = odrive(3);
        fd.format = Format::FdBrs;
        let drives = [odrive(4), fd, odrive(5)];
        let lists = lists(drives.iter(), MARKER);
        let forms: Vec<Format> = lists.iter().map(|list| list[0].format()).collect();
        assert_eq!(forms, [Format::Classic, Format::FdBrs]);
        assert_eq!(lists[0].len(), 5);
    }

    #[test]
    fn a_bus_without_motors_has_no_job() {
        assert!(jobs(0, "can0", &[], 50 * MS).unwrap().is_empty());
    }

    /// The round is 10 ms unless that would crowd a slow bus, however many jobs send side by side.
    #[test]
    fn rounds_are_short_and_buses_not_crowded() {
        assert_eq!(gap(2, 1), 5 * MS);
        assert_eq!(gap(10, 1), MS);
        assert_eq!(gap(256, 1), MS);
        assert_eq!(gap(257, 2), 2 * MS);
        assert_eq!(gap(0, 0), ROUND);
    }

    /// Fails if a tick that is due at the very moment is passed over.
    #[test]
    fn jobs_are_put_off_with_the_ticks() {
        for (tick, passes) in [(1, 10), (2, 5), (5, 2), (10, 1), (12, 1)] {
            let period = period(50 * MS, tick * MS);
            let early = Duration::from_micros(100);
            assert!(
                period <= tick * passes * MS - early,
                "every {passes} ticks of {tick} ms, not {period:?}"
            );
            assert!(passes == 1 || period > tick * (passes - 1) * MS, "{tick} ms: {period:?}");
            assert!(period * 4 >= LONGEST_PERIOD * 3, "the bus is loaded with markers: {period:?}");
        }
        assert!(period(20 * MS, 5 * MS) <= 4 * MS);
    }

    /// The words as a C program on this machine would write them (64 bits, little-endian).
    #[test]
    #[cfg(all(target_pointer_width = "64", target_endian = "little"))]
    fn words_are_those_of_the_kernel() {
        let stop = Frame::classic(ArbitrationId::standard(0x06D), &[1, 2, 3]);
        let message =
            setup(7, &[Frame::classic(ArbitrationId::extended(0x1FBF_FFFF), &[]), stop], 1050 * MS, 2 * MS);
        let mut wanted = Vec::new();
        for word in [1_u32, 0x203, 2, 0] {
            wanted.extend(word.to_le_bytes());
        }
        for long in [1_u64, 50_000, 0, 2_000] {
            wanted.extend(long.to_le_bytes());
        }
        for word in [7_u32, 2, 0x9FBF_FFFF, 0, 0, 0, 0x06D, 3] {
            wanted.extend(word.to_le_bytes());
        }
        wanted.extend([1, 2, 3, 0, 0, 0, 0, 0]);
        assert_eq!(message, wanted);
        assert_eq!(delete(7, &[stop])[..12], [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(delete(7, &[stop]).len(), 56);
        assert_eq!(delete(7, &[stop])[48], 7);
    }

    /// Fails if a request is sent as a data frame: that would be a command.
    #[test]
    fn remote_frames_stay_remote() {
        let message = setup(0, &[Frame::remote(ArbitrationId::standard(0x123))], 50 * MS, MS);
        assert_eq!(message[message.len() - 16..][..4], 0x4000_0123_u32.to_ne_bytes());
    }

    #[test]
    fn fd_frames_are_marked_and_have_room_for_64_bytes() {
        let frame = Frame::fd(ArbitrationId::standard(0x123), &[9; 12]);
        let message = setup(0, &[frame], 50 * MS, MS);
        assert_eq!(message.len(), head(0, 0, 0, (MS, MS), 0, 0).len() + 72);
        assert_eq!(message[4..8], 0xA03_u32.to_ne_bytes());
        let frame = &message[message.len() - 72..];
        assert_eq!(frame[4..8], [12, 1, 0, 0]);
        assert_eq!(frame[8..20], [9; 12]);
    }

    const ROBOT: &str = r#"
[[bus]]
name = "left"
interface = "nosuch0"
[[bus]]
name = "right"
interface = "nosuch1"
[[motor]]
name = "a"
bus = "left"
driver = "odrive"
node = 3
firmware = "0.6"
after_stop = "hold"
max_rpm = 300
[[motor]]
name = "b"
bus = "right"
driver = "odrive"
node = 4
firmware = "0.6"
after_stop = "hold"
max_rpm = 300
"#;

    fn robot() -> Config {
        Config::parse(Path::new("test.toml"), ROBOT).unwrap()
    }

    /// Fails if a bus's jobs hold the stops of another's drives: they would go nowhere.
    #[test]
    fn a_bus_has_the_stops_of_its_own_drives() {
        let config = robot();
        for (index, node) in [(0, 3), (1, 4)] {
            let [job] = &jobs_of(&config, index).unwrap()[..] else { panic!("one job") };
            let drive = odrive(node);
            let mut list = vec![Frame::classic(marker::unheard([&drive].into_iter()).unwrap(), &[])];
            list.extend(drive.stop.stage(0).frames.as_slice());
            let wait = config.supervisor.kernel_stop;
            assert_eq!(job.bus, index);
            assert_eq!(job.setup, setup(0, &list, wait, gap(list.len(), 1)));
            assert_eq!(job.delete, delete(0, &list));
        }
    }

    /// Fails if the text does not say which bus, which interface, and, where it helps, what to do.
    #[test]
    fn an_interface_that_is_not_there_is_named() {
        let text = KernelStop::open(&robot()).unwrap_err();
        assert!(text.starts_with("bus \"left\": CAN_BCM on interface \"nosuch0\": "), "{text}");
        let unknown = [libc::EPROTONOSUPPORT, libc::EAFNOSUPPORT];
        let without = unknown.map(|errno| io::Error::from_raw_os_error(errno).to_string());
        let cannot = without.iter().any(|error| text.contains(error));
        assert_eq!(text.contains("modprobe can-bcm"), cannot, "{text}");
    }

    /// One job with that word on a socket, put off every 8 ms.
    fn stop_on(socket: UnixDatagram) -> KernelStop {
        let job = Job { bus: 0, setup: b"setup".to_vec(), delete: b"delete".to_vec() };
        let line = Line { socket: socket.into(), link: Link::Connected };
        KernelStop { lines: vec![line], jobs: vec![job], period: nanos(8 * MS), ..KernelStop::none() }
    }

    fn pair() -> (UnixDatagram, UnixDatagram) {
        let (kernel, ours) = UnixDatagram::pair().unwrap();
        kernel.set_nonblocking(true).unwrap();
        ours.set_nonblocking(true).unwrap();
        (kernel, ours)
    }

    fn heard(kernel: &UnixDatagram) -> Vec<String> {
        let mut all = Vec::new();
        let mut bytes = [0; 64];
        while let Ok(length) = kernel.recv(&mut bytes) {
            all.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
        }
        all
    }

    const NOW: Nanos = Nanos(1_000_000_000);

    /// Fails if jobs are put off too early, which loads the bus, or too late, which stops the motors.
    #[test]
    fn jobs_are_put_off_when_their_period_is_over() {
        let (kernel, ours) = pair();
        let mut stop = stop_on(ours);
        assert_eq!(stop.put_off(NOW), Some(Tally { rearms: 1, errors: 0 }));
        assert_eq!(heard(&kernel), ["setup"]);
        assert_eq!(stop.put_off(NOW.after(nanos(8 * MS) - 1)), None);
        assert_eq!(heard(&kernel), [""; 0]);
        assert_eq!(stop.put_off(NOW.after(nanos(8 * MS))), Some(Tally { rearms: 2, errors: 0 }));
        assert_eq!(stop.put_off(NOW.after(nanos(30 * MS))), Some(Tally { rearms: 3, errors: 0 }));
        assert_eq!(heard(&kernel), ["setup", "setup"]);
    }

    /// Fails if a job that the kernel refuses is not tried again in the next pass: it would stop the motors.
    #[test]
    fn a_refused_job_is_tried_again_at_once() {
        let (kernel, ours) = pair();
        while ours.send(b"full").is_ok() {}
        let mut stop = stop_on(ours);
        assert_eq!(stop.put_off(NOW), Some(Tally { rearms: 0, errors: 1 }));
        assert_eq!(stop.put_off(NOW), Some(Tally { rearms: 0, errors: 2 }));
        heard(&kernel);
        assert_eq!(stop.put_off(NOW), Some(Tally { rearms: 1, errors: 2 }));
        assert_eq!(heard(&kernel), ["setup"]);
    }

    /// Fails if a socket without interface is written to again and again, or never after it came back.
    #[test]
    fn a_lost_interface_is_left_alone_until_it_is_restored() {
        let alone = UnixDatagram::unbound().unwrap();
        assert_eq!(alone.send(b"").unwrap_err().kind(), ErrorKind::NotConnected, "as without an interface");
        let mut stop = stop_on(alone);
        assert_eq!(stop.put_off(NOW), Some(Tally { rearms: 0, errors: 1 }));
        assert_eq!(stop.put_off(NOW), Some(Tally { rearms: 1, errors: 1 }), "the others are all there");
        assert_eq!(stop.put_off(NOW), None);
        stop.restore(1);
        assert_eq!(stop.put_off(NOW), None, "not that bus");
        stop.restore(0);
        assert_eq!(stop.put_off(NOW), Some(Tally { rearms: 1, errors: 2 }), "tried at once");
    }

    /// Fails if a clean end leaves its jobs in the kernel: they would send stops for ever.
    #[test]
    fn a_clean_end_deletes_the_jobs() {
        let (kernel, ours) = pair();
        stop_on(ours).disarm();
        assert_eq!(heard(&kernel), ["delete"]);
    }

    /// Fails if the holder's descriptors are not of the very sockets that the jobs belong to.
    #[test]
    fn second_descriptors_are_of_the_same_sockets() {
        let (kernel, ours) = pair();
        let stop = stop_on(ours);
        let [second] = &stop.duplicate().unwrap()[..] else { panic!("one for each bus") };
        write(second, b"through it").unwrap();
        assert_eq!(heard(&kernel), ["through it"]);
        assert!(!stop.is_empty());
        assert!(KernelStop::none().is_empty());
        assert_eq!(KernelStop::none().put_off(NOW), None);
    }

    /// Fails if the fuse is not shorter than the kernel's stop, or not there: only this process is limited, and
    /// the limit counts for real-time threads alone.
    #[test]
    fn the_fuse_is_four_fifths_of_the_kernel_stop_and_twice_at_last() {
        limit_loops(50 * MS).unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_RTTIME).unwrap(), (40_000, 100_000));
    }

    #[test]
    fn times_are_in_nanoseconds() {
        assert_eq!(nanos(Duration::from_micros(7)), 7_000);
    }
}
