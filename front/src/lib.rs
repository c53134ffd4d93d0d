//! Lanyard's front: the process that clients talk to.
//!
//! What lives here: client protocols, sessions, and motion over CAN behind the supervisor's grant. The
//! front may be wrong, slow or dead: the supervisor stops the motors whatever happens here.
//!
//! | module | its one idea |
//! |---|---|
//! | [`link`] | the connection to the supervisor |
//! | [`sessions`] | who is alive, the same for every protocol |
//! | [`order`] | the order in which commands and stops came in |
//! | [`motion`] | frames to motors, never without a grant |
//! | [`viam`] | the Viam protocol on top of these |
//! | [`kortex`] | Kinova's protocol on top of these |
//! | [`tunnel`] | supervised links of TCP and UDP, by hoprd's session API |
//! | [`lanyard`] | what no other protocol has: ending a session, the operator's stop, status |
//! | [`native`] | all services that the front answers itself |
//! | [`discovery`] | what a client may ask before it knows anything: reflection and health |
//! | [`proto`] | the generated code of all of them |
//! | [`deadline`] | how long a call may take |
//! | [`transport`] | the port, its limits, and HTTP on it |
//! | [`access`], [`gate`] | who calls, and what they may do |
//! | [`web`] | web pages as clients: gRPC-web, and which pages may call |
//! | [`dispatch`] | what is answered here, and what by the server behind |
//! | [`upstream`] | the server behind |
//! | [`log`] | a log that never makes anybody wait |
#![forbid(unsafe_code)]

mod access;
mod deadline;
mod discovery;
mod dispatch;
#[cfg(test)]
mod fuzz;
mod gate;
mod kortex;
mod lanyard;
mod link;
mod log;
mod motion;
mod native;
mod order;
mod proto;
mod sessions;
mod transport;
mod tunnel;
mod upstream;
mod viam;
mod web;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use config::{Config, Exposure, LeaseFeed, Sessionless};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

use access::{Access, Tls};
use dispatch::{Behind, Dispatch};
use gate::Gate;
use lanyard::Orders;
use log::Log;
use motion::Motion;
pub use motion::{SendError, Wire};
use sessions::{Rules, Sessions};
use transport::{Door, Limits, PlainText};
use tunnel::Tunnels;
use upstream::Upstream;
use viam::Operations;
use web::Web;

/// How long the goodbye of every session may take to reach the supervisor: several of its loops.
const GOODBYE: Duration = Duration::from_millis(100);
/// A quiet client is pinged that often when nothing depends on it.
const PING_EVERY: Duration = Duration::from_secs(30);
/// Within the window of a lease a client's answer to a ping may be lost twice.
const PINGS_PER_LEASE: u32 = 4;

/// What reads bytes that come from outside, for the fuzzer.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// What it is called.
    pub name: &'static str,
    /// Gives it any bytes. Panics when something does not hold that must.
    pub feed: fn(&[u8]),
}

/// All parsers of the front.
pub fn parsers() -> impl Iterator<Item = Parser> {
    kortex::PARSERS.into_iter().chain(tunnel::PARSERS)
}

/// Where motion frames go.
pub enum Outlet {
    /// To the CAN interfaces of the configuration.
    Interfaces,
    /// To these, one per configured bus: what a benchmark puts in their place where there is no CAN.
    Wires(Vec<Arc<dyn Wire>>),
}

/// Serves clients until told to end.
///
/// # Errors
///
/// When the front cannot start, or the supervisor goes on refusing it.
pub fn run(config: Config, outlet: Outlet) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let log = Log::start().context("cannot start the log")?;
    // At least two threads, so that no single task that computes can keep the front's own beat waiting.
    let threads = std::thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let ended = runtime.block_on(serve(config, outlet));
    // A hand-over under way may take seconds to give up; nothing waits for it.
    runtime.shutdown_background();
    log.finish();
    ended
}

async fn serve(config: Arc<Config>, outlet: Outlet) -> anyhow::Result<()> {
    // Before anything else: a signal during the start must not be lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let started = async {
        // What can fail comes first: a front that attaches and then ends is a dead front to the supervisor.
        let access = Access::start(&config)?;
        transport::make_room(&config);
        let listener = transport::listen(config.front.listen).await?;
        let motion = match outlet {
            Outlet::Interfaces => Motion::start(Arc::clone(&config))?,
            Outlet::Wires(wires) => Motion::start_over(Arc::clone(&config), &wires),
        };
        let ports = match &config.kortex {
            None => None,
            Some(settings) => Some((settings, kortex::Ports::bind(settings).await?)),
        };
        let tunnel = match &config.tunnel {
            None => None,
            Some(settings) => Some((settings, tunnel::listen(settings.listen).await?)),
        };
        let (link, keeper) = link::attach(&config).await?;
        anyhow::Ok((access, listener, ports, tunnel, link, keeper, motion))
    };
    let ((access, tls), listener, ports, tunnel, link, keeper, motion) = tokio::select! {
        started = started => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let sessions = Arc::new(Sessions::new(Arc::clone(&link), Rules::of(&config)));
    let operations = Arc::<Operations>::default();
    let orders = Arc::new(Orders::new(&config, Arc::clone(&link), Arc::clone(&motion)));
    let routes = native::routes(&config, &link, &sessions, &motion, &orders, &operations);
    let (ending, end) = watch::channel(false);
    let kortex = ports.map(|(settings, ports)| {
        let (link, sessions, motion) = (Arc::clone(&link), Arc::clone(&sessions), Arc::clone(&motion));
        let parts = kortex::Parts { link, sessions, motion, orders };
        ports.serve(settings, Arc::clone(&access), parts, &end)
    });
    let behind = match &config.upstream {
        None => None,
        Some(settings) => {
            let native = upstream::native(&config);
            let (upstream, tasks) = Upstream::start(
                settings,
                config.front.stop_hold,
                native.clone(),
                Arc::clone(&sessions),
                Arc::clone(&motion),
            )?;
            Some((Arc::new(Behind { upstream, native, operations }), tasks))
        }
    };
    let upstream = behind.as_ref().map(|(behind, _)| Arc::clone(&behind.upstream));
    let dispatch = Dispatch::new(routes, behind.as_ref().map(|(behind, _)| Arc::clone(behind)));
    let address = listener.local_addr().unwrap_or(config.front.listen);
    eprintln!("lanyard-front: listening on {address}");
    // Outlives the choice below: a connection that closes before the goodbyes are read is a dead front.
    let mut keeping = std::pin::pin!(keeper.keep());
    let limits = Limits { connections: config.front.max_connections, ping_every: ping_every(&config) };
    let door = door(tls.clone(), config.front.access.exposure);
    let tunnels = tunnel.map(|(settings, listener)| {
        let means = tunnel::Means { sessions: Arc::clone(&sessions), motion };
        let tunnels = Tunnels::new(settings, Arc::clone(&config), Arc::clone(&access), means);
        let door = self::door(tls.clone(), settings.exposure);
        let api = tunnel::Api { listener, door, limits, origins: config.front.origins.clone() };
        let serving = api.serve(&tunnels, Arc::clone(&access), end.clone());
        (tunnels, serving)
    });
    let tunnels = tunnels.as_ref().map(|(tunnels, _)| &**tunnels);
    // Outside of the gate: also its refusals are told in the caller's protocol, and a page can read them.
    let service = Web::new(Gate::new(dispatch, access), config.front.origins.clone());
    let mut serving = std::pin::pin!(transport::serve(listener, door, service, limits, end));
    let others = Others { upstream: upstream.as_deref(), kortex: kortex.as_ref(), tunnels };
    tokio::select! {
        () = &mut serving => Ok(()),
        error = &mut keeping => Err(error.into()),
        () = sessions.reap() => Ok(()),
        () = sessions.keep_leases() => Ok(()),
        _ = terminate.recv() => say_goodbye(&sessions, &others, &ending).await,
        _ = interrupt.recv() => say_goodbye(&sessions, &others, &ending).await,
    }
}

/// How clients come in.
fn door(tls: Option<Arc<Tls>>, exposure: Exposure) -> Door {
    let plain = match exposure {
        Exposure::Refused => PlainText::Loopback,
        Exposure::Insecure => PlainText::Everybody,
    };
    tls.map_or(Door::Plain, |tls| Door::Tls(tls, plain))
}

/// Where answers to pings keep a lease, a client must be heard often enough.
fn ping_every(config: &Config) -> Duration {
    let sessions = &config.front.sessions;
    match (sessions.sessionless, sessions.lease) {
        (Sessionless::Lease, LeaseFeed::Pings) => PING_EVERY.min(sessions.lease_window / PINGS_PER_LEASE),
        (Sessionless::Lease, LeaseFeed::Commands) | (Sessionless::Refuse | Sessionless::Viam, _) => {
            PING_EVERY
        }
    }
}

/// What has an end of its own to come to.
struct Others<'a> {
    upstream: Option<&'a Upstream>,
    kortex: Option<&'a kortex::Tasks>,
    tunnels: Option<&'a Tunnels>,
}

/// The end in order: every session is closed, so that its motors are stopped for that reason and not
/// because the front is found dead.
async fn say_goodbye(
    sessions: &Sessions,
    behind: &Others<'_>,
    ending: &watch::Sender<bool>,
) -> anyhow::Result<()> {
    info!("told to end; closing every session");
    let Others { upstream, kortex, tunnels } = behind;
    if let Some(tunnels) = tunnels {
        // First these: what a target sends by itself must not come after the stops.
        tunnels.close_all().await;
    }
    sessions.close_all();
    ending.send_replace(true);
    tokio::time::sleep(GOODBYE).await;
    let upstream = async {
        if let Some(upstream) = upstream {
            upstream.settle().await;
        }
    };
    let base = async {
        if let Some(kortex) = kortex {
            kortex.settle().await;
        }
    };
    tokio::join!(upstream, base);
    Ok(())
}
