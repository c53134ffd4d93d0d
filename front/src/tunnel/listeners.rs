//! Every listener, from its request to its end.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{AfterExpiry, Config, LOWEST_PORT, Tunnel, TunnelClients};
use shm_proto::{MotorIndex, Nanos};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::content::Content;
use super::drive::{End, Means, motors_of};
use super::facts::Facts;
use super::reach::{Reach, Standing};
use super::reader::Reader;
use super::request::{Listed, OpenError, Protocol, Request, Stats};
use super::targets::{Pinned, Targets};
use super::{tcp, udp};
use crate::access::{Access, Caller};
use crate::order::Origin;
use crate::sessions::Peer;
use crate::transport::{Connection, next};

/// Listeners that have ended and are still known of.
const REMEMBERED: usize = 128;
/// How long a listener's links may take to end: each closes two sockets.
const ENDING: Duration = Duration::from_secs(1);
/// After an error of accept, which is for want of something, mostly.
const BREATH: Duration = Duration::from_millis(100);
/// After a link of UDP that could not drive: whoever sends on must not keep asking the supervisor.
const BEFORE_ANOTHER: Duration = Duration::from_millis(50);

/// A listener.
pub struct Listener {
    /// Where it is.
    pub address: SocketAddr,
    /// Where it leads.
    pub pinned: Pinned,
    /// What is known of it.
    pub facts: Facts,
    /// What may go on to the target, where its bytes are known.
    reach: Option<Arc<Reach>>,
    motors: Vec<MotorIndex>,
    request: Request,
    from: IpAddr,
    caller: Caller,
    clients: TunnelClients,
    means: Means,
    /// What ends when the key goes that it was opened with.
    bond: Arc<Connection>,
    closing: watch::Sender<bool>,
    over: watch::Sender<bool>,
    places: Arc<Semaphore>,
}

impl Listener {
    /// With what its links drive.
    #[must_use]
    pub const fn means(&self) -> &Means {
        &self.means
    }

    /// Looks at what one client sends.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader::of(&self.pinned.target, self.reach.as_ref())
    }

    /// How a link that does not drive stands to the target's motors.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.means.standing(&self.motors)
    }

    /// Whether a link must drive before this goes on. What asks for standing still is to drive, too, but not before
    /// `refused_until`, when it was refused the motors.
    #[must_use]
    pub fn must_drive(&self, content: &Content, now: Nanos, refused_until: Nanos) -> bool {
        let is_wanted = content.needs_grant || content.motion > 0 && now >= refused_until;
        is_wanted && self.pinned.target.is_supervised()
    }

    /// Notes what of a client's was not let through.
    pub fn note_content(&self, content: &Content) {
        if let Some(why) = &content.why {
            let why = why.to_string();
            if self.facts.note_refused_frames(content.refused, &why) {
                self.tell_refused(&why);
            }
        }
    }

    /// Notes a datagram that was not let through.
    pub fn note_refused(&self, why: &str) {
        if self.facts.note_refused(Some(why)) {
            self.tell_refused(why);
        }
    }

    fn tell_refused(&self, why: &str) {
        info!("tunnel {} to \"{}\": not let through: {why}", self.address, self.pinned.target.name);
    }

    /// Who asked for it.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    /// The connection of a client at that end, for the order in which its commands come.
    #[must_use]
    pub fn connection(&self, peer: Peer) -> Arc<Connection> {
        Connection::new(peer.remote.unwrap_or(self.bond.remote), self.address)
    }

    /// Names what has just been read of a client's. To be called before anything waits.
    #[must_use]
    pub fn origin(&self, connection: &Connection) -> Origin {
        Origin::new(self.caller.entity.clone(), connection)
    }

    /// Returns when it is closed.
    pub async fn closed(&self) {
        // The sender lives in `self`.
        drop(self.closing.subscribe().wait_for(|closing| *closing).await);
    }

    /// Whether somebody at that address may be its client.
    #[must_use]
    pub fn admits(&self, ip: IpAddr) -> bool {
        let (ip, from) = (ip.to_canonical(), self.from.to_canonical());
        match self.clients {
            TunnelClients::Anybody => true,
            TunnelClients::Creator => ip == from || (ip.is_loopback() && from.is_loopback()),
        }
    }

    /// Notes a new link. Returns its number.
    #[must_use]
    pub fn enter(&self) -> u128 {
        let number = uuid::Uuid::new_v4().as_u128();
        self.facts.note_link(number);
        number
    }

    fn listed(&self) -> Listed {
        Listed {
            protocol: self.request.protocol,
            wish: self.request.wish.clone(),
            address: self.address,
            destination: self.request.destination.clone(),
            echoed: Arc::clone(&self.request.echoed),
            links: self.facts.links(),
        }
    }

    /// Notes how a link has ended. Whether the listener goes on.
    fn note(&self, end: &End) -> bool {
        let name = &self.pinned.target.name;
        match end {
            End::Refused(why) => {
                let is_news = self.facts.note_refused(Some(why));
                if is_news {
                    info!("tunnel {} to \"{name}\": a link was refused: {why}", self.address);
                }
                true
            }
            end if end.is_trip() => {
                self.facts.note_trip(&end.to_string());
                warn!("tunnel {} to \"{name}\": the link was cut: {end}", self.address);
                self.pinned.target.after_expiry == AfterExpiry::Wait
            }
            End::Closed => false,
            _ => {
                self.facts.note_rest();
                debug!("tunnel {} to \"{name}\": a link is over: {end}", self.address);
                true
            }
        }
    }
}

type Key = (Protocol, SocketAddr);

#[derive(Default)]
struct Book {
    open: HashMap<Key, Arc<Listener>>,
    /// Being opened.
    pending: usize,
    ended: VecDeque<Arc<Listener>>,
}

/// All listeners.
pub struct Tunnels {
    settings: Tunnel,
    config: Arc<Config>,
    targets: Targets,
    means: Means,
    access: Arc<Access>,
    places: Arc<Semaphore>,
    book: Mutex<Book>,
}

/// A place among those being opened.
struct Pending<'a>(&'a Tunnels);

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.book().pending -= 1;
    }
}

enum Socket {
    Tcp(TcpListener),
    /// And one towards the target, if it has to be a certain one.
    Udp(UdpSocket, Option<UdpSocket>),
}

impl Socket {
    fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket, _) => socket.local_addr(),
        }
    }
}

impl Tunnels {
    /// No listener yet.
    #[must_use]
    pub fn new(settings: &Tunnel, config: Arc<Config>, access: Arc<Access>, means: Means) -> Arc<Self> {
        Arc::new(Self {
            targets: Targets::new(&settings.targets),
            places: Arc::new(Semaphore::new(settings.max_connections)),
            settings: settings.clone(),
            config,
            means,
            access,
            book: Mutex::default(),
        })
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the configuration says.
    #[must_use]
    pub const fn settings(&self) -> &Tunnel {
        &self.settings
    }

    /// Opens a listener, for who calls from that address.
    ///
    /// # Errors
    ///
    /// When there can be none, or its target is not one of the configuration's.
    pub async fn open(
        self: &Arc<Self>,
        caller: &Caller,
        from: IpAddr,
        request: Request,
    ) -> Result<Listed, OpenError> {
        let opened = self.try_open(caller, from, request).await;
        if let Err(OpenError::Refused(why)) = &opened {
            warn!("tunnel: {from} asked for a listener that it does not get: {why}");
        }
        opened
    }

    async fn try_open(
        self: &Arc<Self>,
        caller: &Caller,
        from: IpAddr,
        request: Request,
    ) -> Result<Listed, OpenError> {
        self.check_place(request.listen)?;
        let _pending = self.reserve()?;
        let found = self.targets.find(request.protocol, &request.wish, &request.destination).await;
        let pinned = found.map_err(OpenError::Refused)?;
        let socket = self.bind(&request, &pinned).await?;
        let address = socket.address().map_err(|error| OpenError::Refused(error.to_string()))?;
        let bond = Connection::new(SocketAddr::new(from, 0), address);
        let listener = Arc::new(Listener {
            address,
            reach: Reach::of(&pinned.target, &self.config).map(Arc::new),
            motors: motors_of(&pinned.target),
            pinned,
            facts: Facts::new(),
            from,
            caller: caller.clone(),
            clients: self.settings.clients,
            means: self.means.clone(),
            bond: Arc::clone(&bond),
            closing: watch::Sender::new(false),
            over: watch::Sender::new(false),
            places: Arc::clone(&self.places),
            request,
        });
        // First this, so that a key that goes from now on takes the listener along.
        self.access.bind(caller, &bond);
        self.book().open.insert((listener.request.protocol, address), Arc::clone(&listener));
        info!(
            "tunnel: {} listener {address} to \"{}\" was opened by {from}",
            listener.request.protocol.name(),
            listener.pinned.target.name
        );
        tokio::spawn(Arc::clone(self).keep(Arc::clone(&listener), socket));
        Ok(listener.listed())
    }

    /// Whether a listener may be there at all.
    fn check_place(&self, listen: SocketAddr) -> Result<(), OpenError> {
        let hosts = &self.settings.listen_hosts;
        if !hosts.contains(&listen.ip()) {
            let known: Vec<_> = hosts.iter().map(IpAddr::to_string).collect();
            return Err(OpenError::Refused(format!(
                "{} is none of the addresses that listeners may have here: {} (listen_hosts in [tunnel])",
                listen.ip(),
                known.join(", ")
            )));
        }
        if (1..LOWEST_PORT).contains(&listen.port()) {
            let port = listen.port();
            return Err(OpenError::Refused(format!(
                "port {port} is one of the computer's own; give {LOWEST_PORT} to 65535, or 0 for any"
            )));
        }
        Ok(())
    }

    fn reserve(&self) -> Result<Pending<'_>, OpenError> {
        let mut book = self.book();
        if book.open.len() + book.pending >= self.settings.max_listeners {
            return Err(OpenError::Refused(format!(
                "there are {} listeners, as many as may be (max_listeners in [tunnel]); close some",
                self.settings.max_listeners
            )));
        }
        book.pending += 1;
        Ok(Pending(self))
    }

    async fn bind(&self, request: &Request, pinned: &Pinned) -> Result<Socket, OpenError> {
        let listen = request.listen;
        let ports = match (&self.settings.ports, listen.port()) {
            (Some(range), 0) => range.clone(),
            (_, port) => port..=port,
        };
        let (first, last) = (*ports.start(), *ports.end());
        let ready = match request.protocol {
            // It is taken now, so that whoever asks learns that it cannot be had.
            Protocol::Udp if pinned.target.source.is_some() => {
                Some(udp::towards(pinned).await.map_err(OpenError::Refused)?)
            }
            Protocol::Tcp | Protocol::Udp => None,
        };
        for port in ports {
            let address = SocketAddr::new(listen.ip(), port);
            let bound = match request.protocol {
                Protocol::Tcp => TcpListener::bind(address).await.map(Socket::Tcp),
                Protocol::Udp => UdpSocket::bind(address).await.map(|socket| Socket::Udp(socket, None)),
            };
            match bound {
                Ok(Socket::Udp(socket, _)) => return Ok(Socket::Udp(socket, ready)),
                Ok(socket) => return Ok(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    let name = request.protocol.name().to_ascii_uppercase();
                    return Err(OpenError::Refused(format!(
                        "failed to start {name} listener on {address}: {error}"
                    )));
                }
            }
        }
        if first == last {
            Err(OpenError::AddressTaken)
        } else {
            Err(OpenError::Refused(format!("every port from {first} to {last} is taken (ports in [tunnel])")))
        }
    }

    /// Keeps a listener until it ends.
    async fn keep(self: Arc<Self>, listener: Arc<Listener>, socket: Socket) {
        let why = tokio::select! {
            why = async {
                match socket {
                    Socket::Tcp(socket) => keep_tcp(&listener, socket).await,
                    Socket::Udp(socket, target) => keep_udp(&listener, socket, target).await,
                }
            } => why,
            () = listener.bond.dismissed() => {
                self.end(&listener, "the key it was opened with is gone or another");
                // Dropping the links closes what they drive, after their sockets.
                "the key it was opened with is gone or another"
            }
        };
        self.end(&listener, why);
        listener.over.send_replace(true);
    }

    /// From now on it is in no list.
    fn end(&self, listener: &Arc<Listener>, why: &str) {
        let mut book = self.book();
        let key = (listener.request.protocol, listener.address);
        let is_this = book.open.get(&key).is_some_and(|other| Arc::ptr_eq(other, listener));
        if !is_this {
            return;
        }
        book.open.remove(&key);
        listener.facts.note_closed(why);
        info!(
            "tunnel: listener {} to \"{}\" has ended: {why}",
            listener.address, listener.pinned.target.name
        );
        if book.ended.len() >= REMEMBERED {
            book.ended.pop_front();
        }
        book.ended.push_back(Arc::clone(listener));
    }

    /// Every listener of that protocol.
    #[must_use]
    pub fn list(&self, protocol: Protocol) -> Vec<Listed> {
        let book = self.book();
        let mut all: Vec<_> = book
            .open
            .iter()
            .filter(|((other, _), _)| *other == protocol)
            .map(|(_, listener)| listener.listed())
            .collect();
        all.sort_by_key(|listed| listed.address);
        all
    }

    /// Closes a listener, or with port 0 all of an address. Returns how many; by then their links are cut and the sessions of
    /// these are over.
    pub async fn close(&self, protocol: Protocol, ip: IpAddr, port: u16) -> usize {
        let found: Vec<_> = {
            let book = self.book();
            let fits = |address: &SocketAddr| address.ip() == ip && (port == 0 || address.port() == port);
            let of = book.open.iter().filter(|((other, address), _)| *other == protocol && fits(address));
            of.map(|(_, listener)| Arc::clone(listener)).collect()
        };
        self.close_these(&found, "it was closed over the API").await;
        found.len()
    }

    /// Closes every listener, because the program ends.
    pub async fn close_all(&self) {
        let all: Vec<_> = self.book().open.values().cloned().collect();
        self.close_these(&all, "the program ends").await;
    }

    async fn close_these(&self, listeners: &[Arc<Listener>], why: &str) {
        for listener in listeners {
            self.end(listener, why);
            listener.closing.send_replace(true);
        }
        let over = async {
            for listener in listeners {
                // The sender lives in the listener.
                drop(listener.over.subscribe().wait_for(|over| *over).await);
            }
        };
        if timeout(ENDING, over).await.is_err() {
            warn!("tunnel: links take longer than {} s to end", ENDING.as_secs());
        }
    }

    /// What is known of a listener, also of one that has ended lately.
    #[must_use]
    pub fn stats(&self, protocol: Protocol, address: SocketAddr) -> Option<Stats> {
        let book = self.book();
        let fits =
            |listener: &&Arc<Listener>| listener.request.protocol == protocol && listener.address == address;
        let open = book.open.get(&(protocol, address));
        let listener = open.or_else(|| book.ended.iter().rev().find(fits))?;
        Some(listener.facts.stats(&listener.listed()))
    }
}

/// Takes connections until the listener ends. Returns why.
async fn keep_tcp(listener: &Arc<Listener>, socket: TcpListener) -> &'static str {
    let mut links = JoinSet::new();
    let why = loop {
        tokio::select! {
            () = listener.closed() => break "it was closed",
            Some(ended) = links.join_next(), if !links.is_empty() => {
                let goes_on = ended.is_ok_and(|end: End| listener.note(&end));
                if !goes_on {
                    break "its link was cut";
                }
            }
            accepted = next(&socket) => match accepted {
                Ok((client, remote)) => {
                    if let Some(link) = admit(listener, client, remote) {
                        links.spawn(link);
                    }
                }
                Err(error) => {
                    warn!("tunnel {}: cannot accept a connection: {error}", listener.address);
                    sleep(BREATH).await;
                }
            },
        }
    };
    // Nobody new comes in while the others end.
    drop(socket);
    listener.closing.send_replace(true);
    while let Some(ended) = links.join_next().await {
        if let Ok(end) = ended {
            listener.note(&end);
        }
    }
    why
}

/// The link of a client that may come in.
fn admit(
    listener: &Arc<Listener>,
    client: TcpStream,
    remote: SocketAddr,
) -> Option<impl Future<Output = End> + Send + use<>> {
    let refuse = |why: &str| {
        if listener.facts.note_refused(Some(why)) {
            info!("tunnel {}: a connection from {remote} was refused: {why}", listener.address);
        }
    };
    if !listener.admits(remote.ip()) {
        refuse("it comes from another address than the request (clients = \"creator\" in [tunnel])");
        return None;
    }
    let Ok(place) = Arc::clone(&listener.places).try_acquire_owned() else {
        refuse("there are as many connections as may be (max_connections in [tunnel])");
        return None;
    };
    tcp::prepare(&client);
    let listener = Arc::clone(listener);
    Some(async move {
        let number = listener.enter();
        let peer = tcp::peer(remote, listener.address);
        let end = tcp::serve(&listener, client, peer).await;
        listener.facts.note_left(number);
        drop(place);
        end
    })
}

/// Serves one client after the other until the listener ends. Returns why.
async fn keep_udp(
    listener: &Arc<Listener>,
    socket: UdpSocket,
    mut target: Option<UdpSocket>,
) -> &'static str {
    let mut holding = udp::Holding::default();
    loop {
        let end = udp::serve(listener, &socket, target.take(), &mut holding).await;
        if end == End::Closed {
            return "it was closed";
        }
        if !listener.note(&end) {
            return "its link was cut";
        }
        if end.is_trip() {
            holding.bar();
        }
        if matches!(end, End::Refused(_)) {
            sleep(BEFORE_ANOTHER).await;
        }
    }
}
