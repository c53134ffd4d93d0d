//! The kernel-armed stop: jobs in the kernel that send the stops when this process no longer puts them off.
//!
//! Each bus has jobs of CAN_BCM, the kernel's broadcast manager: lists of frames, of which the first is a *marker* that no
//! drive hears. Arming a job sends its marker at once. Should this process not arm it again in time, a timer of the
//! kernel sends the rest, however this process is: stopped, starved, stuck in a loop, or dead.
//!
//! The jobs of a bus follow each other. The first begins after `kernel_stop` and has the first stop stage of every motor;
//! the next ones have the harder stages, each for about `stage_timeout`. Then comes silence wherever a stop would
//! feed the watchdog of a drive, and the last stage for ever elsewhere ([`drivers::unattended`]).
//!
//! What lives here: the jobs, and the real-time thread's part: non-blocking writes. What must never: anything that could keep
//! a drive's own watchdog content while this process hangs.
//!
//! What it cannot do. The kernel sends with the queue priority of motion frames, tries again only one round
//! later when the queue is full, and knows nothing of proof: it goes on to the next stage by the clock. Its timers run on the
//! CPU that armed them, on a kernel with PREEMPT_RT in a thread of low priority, on one before 6.5 in such a thread when
//! there is much to do: a *busy loop* of the real-time thread then keeps the kernel from sending, too. So such
//! a loop is ended by the kernel's tick ([`limit_loops`]), and then the timers run. A bus whose bit rate was lowered since
//! the start is sent more than it carries; its frames are then sent as fast as it can.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use config::Config;
use config::kernel_plan::KernelPlan;
use drivers::unattended::{BitRates, Job, Turn};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::write;
use shm_proto::Nanos;

use crate::netlink::Netlink;
use crate::rearm::{Spare, Words};
use crate::{bcm, bus, log, sys};

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

/// One job, as the words it is armed and deleted with.
#[derive(Debug)]
struct Armed {
    bus: usize,
    /// Written one after the other, each time it is put off.
    messages: Vec<Vec<u8>>,
    delete: Vec<u8>,
    /// Asks whether it is there.
    ask: Vec<u8>,
    /// From one putting off to the next.
    period: u64,
    due: Nanos,
    /// When the kernel took it last; zero while it is not armed for certain.
    taken: Nanos,
    /// After how long it sends its first stop, nanoseconds.
    wait: u64,
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
    interface: String,
    link: Link,
}

/// How often the jobs were put off, and how often the kernel refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Times that all jobs that were due were put off.
    pub rearms: u64,
    /// Jobs that the kernel refused to take.
    pub errors: u64,
    /// Jobs that were put off when the kernel had begun to send their stops already.
    pub overtaken: u64,
}

/// The jobs of all buses.
#[derive(Debug)]
pub struct KernelStop {
    lines: Vec<Line>,
    jobs: Vec<Armed>,
    tally: Tally,
}

impl KernelStop {
    /// No jobs: for a kernel that cannot, or a benchmark.
    #[must_use]
    pub fn none() -> Self {
        Self { lines: Vec::new(), jobs: Vec::new(), tally: Tally::default() }
    }

    /// Opens a socket for every bus and builds its jobs. Nothing is armed yet.
    ///
    /// # Errors
    ///
    /// When the kernel has no broadcast manager, or an interface is not there; the text says what to do.
    pub fn open(config: &Config) -> Result<Self, String> {
        let mut stop = Self::none();
        // Without it the bit rates are not known, and the frames come more slowly.
        let netlink = Netlink::open().ok();
        for (index, bus) in config.buses.iter().enumerate() {
            let (socket, interface) = (socket_of(config, index)?, bus.interface.clone());
            stop.lines.push(Line { socket, interface, link: Link::Connected });
            let link = netlink.as_ref().and_then(|netlink| netlink.look_at(&bus.interface).ok().flatten());
            stop.jobs.extend(jobs_of(config, index, link.and_then(|link| link.rates))?);
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

    /// What the holder needs of each bus.
    ///
    /// # Errors
    ///
    /// When there are no descriptors left.
    pub fn spares(&self) -> io::Result<Vec<Spare>> {
        let words = |job: &Armed| Words { ask: job.ask.clone(), arm: job.messages.clone() };
        let spare = |(bus, line): (usize, &Line)| {
            let jobs = self.jobs.iter().filter(|job| job.bus == bus).map(words).collect();
            Ok(Spare { socket: line.socket.try_clone()?, interface: line.interface.clone(), jobs })
        };
        self.lines.iter().enumerate().map(spare).collect()
    }

    /// Arms the jobs, or puts them off, if it is time to. `None`: it was not.
    ///
    /// What the kernel refuses is tried again in the next pass. `clock` is read before and after each write: the thread may be
    /// kept from its work between reading a clock and writing, and the kernel's timer runs meanwhile.
    pub fn put_off(&mut self, clock: impl Fn() -> Nanos) -> Option<Tally> {
        let Self { lines, jobs, tally } = self;
        let mut now = clock();
        let before = *tally;
        let mut looked_at = false;
        for job in jobs.iter_mut() {
            if now < job.due {
                continue;
            }
            looked_at = true;
            let Some(line) = lines.get_mut(job.bus).filter(|line| line.link == Link::Connected) else {
                job.due = now.after(job.period);
                continue;
            };
            let refused = job.messages.iter().find_map(|message| write(&line.socket, message).err());
            let before = std::mem::replace(&mut now, clock());
            match refused {
                None => {
                    if job.taken != Nanos::ZERO && now.since(job.taken) >= job.wait {
                        tally.overtaken += 1;
                    }
                    (job.due, job.taken) = (before.after(job.period), before);
                }
                Some(error) => {
                    tally.errors += 1;
                    // The interface was removed and the socket belongs to none. Housekeeping connects it to the
                    // next one; until then it is not touched, lest this thread wait for the socket's lock.
                    if matches!(error, Errno::ENOTCONN | Errno::ENODEV | Errno::ENXIO) {
                        line.link = Link::Lost;
                    }
                }
            }
        }
        if looked_at && tally.errors == before.errors {
            tally.rearms += 1;
        }
        looked_at.then_some(*tally)
    }

    /// The interface of a bus works again, perhaps another one under its name: its jobs are armed at once.
    pub fn restore(&mut self, bus: usize) {
        if let Some(line) = self.lines.get_mut(bus) {
            line.link = Link::Connected;
        }
        for job in self.jobs.iter_mut().filter(|job| job.bus == bus) {
            // While the interface was gone it sent nothing: that is not this thread's lateness.
            (job.due, job.taken) = (Nanos::ZERO, Nanos::ZERO);
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

/// How long at least from one putting off of the first jobs to the next.
fn period(wait: Duration, tick: Duration) -> Duration {
    with_the_ticks(LONGEST_PERIOD.min(wait / TIMES), tick)
}

/// A little less than is meant, because the loop comes round with the ticks: a tick that is a microsecond early must
/// count, or it would only be the next one.
fn with_the_ticks(meant: Duration, tick: Duration) -> Duration {
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
fn jobs_of(config: &Config, index: usize, rates: Option<BitRates>) -> Result<Vec<Armed>, String> {
    let plan = KernelPlan::of(config, index, rates)?;
    if plan.is_spread_out() {
        log::line(&format!(
            "WARNING: bus \"{}\": if this supervisor is killed or hangs, the last motor is sent its first stop {} ms after \
             kernel_stop; spread the motors over two buses, or raise the bit rate",
            config.buses[index].name,
            plan.spread().as_millis()
        ));
    }
    let tick = config.supervisor.tick;
    let (first, later) = (period(plan.times.wait, tick), with_the_ticks(plan.times.slack(), tick));
    let armed = |(key, job): (u32, &Job)| Armed {
        bus: index,
        messages: bcm::put_off(key, job),
        delete: bcm::delete(key, job),
        ask: bcm::ask(key, job),
        period: nanos(match job.turn {
            Turn::First => first,
            Turn::Later => later,
        }),
        due: Nanos::ZERO,
        taken: Nanos::ZERO,
        wait: nanos(job.wait),
    };
    Ok((0..).zip(&plan.jobs).map(armed).collect())
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use super::*;
    use drivers::AfterStop;
    use nix::sys::resource::getrlimit;

    const MS: Duration = Duration::from_millis(1);

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
        for index in [0, 1] {
            let jobs = jobs_of(&config, index, None).unwrap();
            let plan = KernelPlan::of(&config, index, None).unwrap();
            assert_eq!(jobs.len(), plan.jobs.len());
            for (key, (job, planned)) in (0..).zip(jobs.iter().zip(&plan.jobs)) {
                assert_eq!(job.bus, index);
                assert_eq!(job.messages, bcm::put_off(key, planned));
                assert_eq!(job.delete, bcm::delete(key, planned));
            }
            let own = &config.motors[index].drive.stop.stage(0).frames;
            assert_eq!(&plan.jobs[0].frames[1..], own.as_slice());
        }
    }

    /// The later jobs wait for longer and are put off more seldom: each time costs a frame on the bus.
    #[test]
    fn later_jobs_load_the_bus_less() {
        let mut config = robot();
        for motor in &mut config.motors {
            motor.drive.stop.after = AfterStop::Release;
        }
        let jobs = jobs_of(&config, 0, None).unwrap();
        assert_eq!(jobs.len(), 3, "an ODrive has three stages");
        let [first, later @ ..] = &jobs[..] else { panic!("none") };
        assert!(first.period <= nanos(10 * MS));
        assert!(later.iter().all(|job| job.period > nanos(90 * MS) && job.period <= nanos(100 * MS)));
        // With the times that are shipped, a job that is put off in its turn has sent nothing: else every turn were a trip.
        let tick = nanos(config.supervisor.tick);
        assert!(jobs.iter().all(|job| job.period + 2 * tick < job.wait));
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
        let job = Armed {
            bus: 0,
            messages: vec![b"start".to_vec(), b"shape".to_vec()],
            delete: b"delete".to_vec(),
            ask: b"ask".to_vec(),
            period: nanos(8 * MS),
            due: Nanos::ZERO,
            taken: Nanos::ZERO,
            wait: nanos(50 * MS),
        };
        let interface = "nosuch0".to_owned();
        let line = Line { socket: socket.into(), interface, link: Link::Connected };
        KernelStop { lines: vec![line], jobs: vec![job], ..KernelStop::none() }
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
        assert_eq!(stop.put_off(|| NOW), Some(Tally { rearms: 1, errors: 0, overtaken: 0 }));
        assert_eq!(heard(&kernel), ["start", "shape"]);
        assert_eq!(stop.put_off(|| NOW.after(nanos(8 * MS) - 1)), None);
        assert_eq!(heard(&kernel), [""; 0]);
        assert_eq!(
            stop.put_off(|| NOW.after(nanos(8 * MS))),
            Some(Tally { rearms: 2, errors: 0, overtaken: 0 })
        );
        assert_eq!(
            stop.put_off(|| NOW.after(nanos(30 * MS))),
            Some(Tally { rearms: 3, errors: 0, overtaken: 0 })
        );
        assert_eq!(heard(&kernel), ["start", "shape", "start", "shape"]);
    }

    /// Fails if nothing tells that the kernel has sent stops, which the drives have obeyed; or if that is told of a job that
    /// sent none because its interface was gone.
    #[test]
    fn a_job_that_was_put_off_too_late_is_counted() {
        let (_kernel, ours) = pair();
        let mut stop = stop_on(ours);
        let in_time = NOW.after(nanos(50 * MS) - 1);
        let late = in_time.after(nanos(50 * MS));
        let overtaken = |stop: &mut KernelStop, now| stop.put_off(|| now).unwrap().overtaken;
        assert_eq!(overtaken(&mut stop, NOW), 0);
        assert_eq!(overtaken(&mut stop, in_time), 0);
        assert_eq!(overtaken(&mut stop, late), 1);
        stop.restore(0);
        assert_eq!(overtaken(&mut stop, late.after(nanos(50 * MS))), 1, "it was restored");
    }

    /// A clock that is read before a write and after it, and not once more.
    fn clock([before, after]: [Nanos; 2]) -> impl Fn() -> Nanos {
        let readings = std::cell::RefCell::new(vec![after, before]);
        move || readings.borrow_mut().pop().expect("no more than two readings")
    }

    /// Fails if the thread can hang between the look at the clock and the write, and nothing tells that the kernel has sent stops.
    #[test]
    fn a_pause_before_the_write_counts() {
        let (_kernel, ours) = pair();
        let mut stop = stop_on(ours);
        let (second, resumed) = (NOW.after(nanos(45 * MS)), NOW.after(nanos(60 * MS)));
        assert_eq!(stop.put_off(clock([NOW, NOW])).unwrap().overtaken, 0);
        assert_eq!(stop.put_off(clock([second, resumed])).unwrap().overtaken, 1, "it hung for 15 ms");
    }

    /// Fails if what a putting off took counts for the next one: the kernel's timer began somewhere within.
    #[test]
    fn the_next_one_counts_from_before_the_last_write() {
        let (_kernel, ours) = pair();
        let mut stop = stop_on(ours);
        let (written, late) = (NOW.after(nanos(20 * MS)), NOW.after(nanos(50 * MS)));
        assert_eq!(stop.put_off(clock([NOW, written])).unwrap().overtaken, 0);
        assert_eq!(stop.put_off(clock([late, late])).unwrap().overtaken, 1);
    }

    /// Fails if a job that the kernel refuses is not tried again in the next pass: it would stop the motors.
    #[test]
    fn a_refused_job_is_tried_again_at_once() {
        let (kernel, ours) = pair();
        while ours.send(b"full").is_ok() {}
        let mut stop = stop_on(ours);
        assert_eq!(stop.put_off(|| NOW), Some(Tally { rearms: 0, errors: 1, overtaken: 0 }));
        assert_eq!(stop.put_off(|| NOW), Some(Tally { rearms: 0, errors: 2, overtaken: 0 }));
        heard(&kernel);
        assert_eq!(stop.put_off(|| NOW), Some(Tally { rearms: 1, errors: 2, overtaken: 0 }));
        assert_eq!(heard(&kernel), ["start", "shape"]);
    }

    /// Fails if a socket without interface is written to again and again, or never after it came back.
    #[test]
    fn a_lost_interface_is_left_alone_until_it_is_restored() {
        let alone = UnixDatagram::unbound().unwrap();
        assert_eq!(alone.send(b"").unwrap_err().kind(), ErrorKind::NotConnected, "as without an interface");
        let mut stop = stop_on(alone);
        assert_eq!(stop.put_off(|| NOW), Some(Tally { rearms: 0, errors: 1, overtaken: 0 }));
        assert_eq!(
            stop.put_off(|| NOW),
            Some(Tally { rearms: 1, errors: 1, overtaken: 0 }),
            "the others are all there"
        );
        assert_eq!(stop.put_off(|| NOW), None);
        stop.restore(1);
        assert_eq!(stop.put_off(|| NOW), None, "not that bus");
        stop.restore(0);
        assert_eq!(stop.put_off(|| NOW), Some(Tally { rearms: 1, errors: 2, overtaken: 0 }), "tried at once");
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
        let [spare] = &stop.spares().unwrap()[..] else { panic!("one for each bus") };
        write(&spare.socket, b"through it").unwrap();
        assert_eq!(heard(&kernel), ["through it"]);
        let words = Words { ask: b"ask".to_vec(), arm: vec![b"start".to_vec(), b"shape".to_vec()] };
        assert_eq!((spare.interface.as_str(), &spare.jobs), ("nosuch0", &vec![words]));
        assert!(!stop.is_empty());
        assert!(KernelStop::none().is_empty());
        assert_eq!(KernelStop::none().put_off(|| NOW), None);
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
