//! What the figures are measured against: mostly a peer that ran in the same run, because absolute times of a
//! shared machine say little.

use super::figures::Figures;

/// What a figure is held against.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// At most this multiple of another figure.
    MostTimes(f64, &'static str),
    /// At least this multiple of another figure.
    LeastTimes(f64, &'static str),
    /// At most this much more than another figure.
    MostAbove(f64, &'static str),
    /// At most this.
    Most(f64),
}

/// One goal.
#[derive(Clone, Copy, Debug)]
struct Goal {
    figure: &'static str,
    bound: Bound,
}

const fn goal(figure: &'static str, bound: Bound) -> Goal {
    Goal { figure, bound }
}

const GOALS: &[Goal] = &[
    goal("shm.publish_read_ns", Bound::MostTimes(1.0, "shm.peer.rtrb_ns")),
    goal("trip.idle.p999_us", Bound::MostTimes(1.3, "cyclictest.idle.p999_us")),
    goal("trip.loaded.p999_us", Bound::MostTimes(1.3, "cyclictest.loaded.p999_us")),
    goal("trip.icount.avg_us", Bound::MostAbove(15.0, "cyclictest.icount.avg_us")),
    goal("naive.tokio.loaded.p99_us", Bound::LeastTimes(20.0, "trip.loaded.p99_us")),
    goal("naive.python_can.loaded.p99_us", Bound::LeastTimes(20.0, "trip.loaded.p99_us")),
    goal("supervisor.cpu_percent.1024", Bound::Most(1.0)),
    goal("supervisor.rss_kib", Bound::Most(4096.0)),
    goal("supervisor.private_kib.1024", Bound::Most(4096.0)),
    goal("supervisor.faults", Bound::Most(0.0)),
    goal("supervisor.allocations", Bound::Most(0.0)),
    goal("stop64.frames_us", Bound::Most(200.0)),
    goal("front.beats.hanging.p999_us", Bound::MostTimes(2.0, "front.beats.idle.p999_us")),
    goal("front.cpu_percent.1000", Bound::Most(15.0)),
    goal("front.proxy.added_p50_us", Bound::Most(60.0)),
    goal("front.proxy.added_p99_us", Bound::Most(200.0)),
    // On one core each: the client's own time, which it takes from either's core, is not counted.
    goal("front.proxy.calls_per_core_s", Bound::LeastTimes(0.7, "front.proxy.direct.calls_per_core_s")),
    goal("tunnel.tcp.link.bytes_per_s", Bound::LeastTimes(0.8, "tunnel.tcp.bare.bytes_per_s")),
    goal("tunnel.udp.link.datagrams_per_s", Bound::LeastTimes(0.8, "tunnel.udp.bare.datagrams_per_s")),
    goal("tunnel.tcp.added_p99_us", Bound::Most(100.0)),
    goal("tunnel.udp.added_p99_us", Bound::Most(100.0)),
    goal("tunnel.kib_per_listener", Bound::Most(64.0)),
    goal("tunnel.kib_per_connection", Bound::Most(64.0)),
    goal("front.heartbeats_per_s", Bound::LeastTimes(0.9, "front.bare_tonic_per_s")),
];

/// Prints every goal whose figures were measured, with the ratio and whether it is met.
pub fn print(figures: &Figures) {
    for Goal { figure, bound } in GOALS {
        let Some(have) = figures.get(figure) else { continue };
        let peer = |name| figures.get(name);
        let judged = match *bound {
            Bound::Most(most) => Some((have <= most, format!("{have:.1}, goal at most {most}"))),
            Bound::MostTimes(most, name) => peer(name).map(|peer| {
                let ratio = have / peer;
                (ratio <= most, format!("{ratio:.2} times {name}, goal at most {most}"))
            }),
            Bound::LeastTimes(least, name) => peer(name).map(|peer| {
                let ratio = have / peer;
                (ratio >= least, format!("{ratio:.2} times {name}, goal at least {least}"))
            }),
            Bound::MostAbove(most, name) => peer(name).map(|peer| {
                let more = have - peer;
                (more <= most, format!("{more:+.1} against {name}, goal at most {most:+}"))
            }),
        };
        if let Some((met, how)) = judged {
            println!("{} {figure}: {how}", if met { "met   " } else { "MISSED" });
        }
    }
}
