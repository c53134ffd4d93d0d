//! Links of TCP: bytes there and back, read by read.
//!
//! What cannot be sent on at once waits for its own direction, in a buffer of its own, and nothing more is read there
//! meanwhile. A link that drives is cut with a reset: nothing that waits is sent any more, here or in the kernel.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use shm_proto::Nanos;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead as _, AsyncWrite as _};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use super::buffer;
use super::content::Content;
use super::drive::{Driving, End};
use super::facts::Facts;
use super::listeners::Listener;
use super::reach::Standing;
use super::reader::Reader;
use super::targets::Pinned;
use crate::order::Origin;
use crate::sessions::Peer;
use crate::transport::Connection;

/// What may wait for a client that does not read: a piece of the target's, and as much again of our own answers.
const MOST_UNREAD: usize = 2 * buffer::LENGTH;
/// After a client that asks for standing still was refused the motors, the supervisor is not asked for so long: what it asks
/// for goes on without.
pub const BEFORE_ASKING_AGAIN: u64 = 250_000_000;
/// A computer that is gone is noticed after so long by links that nothing else watches. It is no sign of life: what drives
/// is cut long before.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// One of the two directions.
#[derive(Debug, Default)]
struct Direction {
    /// What was read and has not gone on.
    waiting: Vec<u8>,
    /// Its reader has seen the end.
    ended: bool,
    /// The end has gone on.
    closed: bool,
}

/// A link.
struct Link<'a> {
    client: TcpStream,
    target: TcpStream,
    up: Direction,
    down: Direction,
    reader: Reader,
    /// What goes on of a read, where its content is looked at.
    sifted: Vec<u8>,
    /// What has come that waits for the right to go on, and when it came.
    asks: Option<(Content, Origin)>,
    connection: Arc<Connection>,
    driving: Option<Driving>,
    /// Before this, what asks for standing still goes on without the motors being granted.
    refused_until: Nanos,
    listener: &'a Listener,
    facts: &'a Facts,
}

/// What a link waits for next.
enum Step {
    /// What has come needs the motors: the link is to drive before it goes on.
    Ask(Content, Origin),
    /// It is over.
    Over(End),
}

/// Serves one client until the link is over.
pub async fn serve(listener: &Arc<Listener>, client: TcpStream, peer: Peer) -> End {
    let target = match connect(&listener.pinned).await {
        Ok(target) => target,
        Err(why) => {
            reset(&client);
            return End::Refused(why);
        }
    };
    if listener.pinned.target.is_supervised() {
        // However this ends, a panic included, nothing that waits to be sent goes on.
        reset(&target);
    }
    let mut link = Link {
        client,
        target,
        up: Direction::default(),
        down: Direction::default(),
        reader: listener.reader(),
        sifted: Vec::new(),
        asks: None,
        connection: listener.connection(peer),
        driving: None,
        refused_until: Nanos::ZERO,
        listener: listener.as_ref(),
        facts: &listener.facts,
    };
    let end = tokio::select! {
        end = link.run(listener, peer) => end,
        () = listener.closed() => End::Closed,
    };
    link.end(&end);
    end
}

/// Connects to a target: at its first address that takes it.
async fn connect(pinned: &Pinned) -> Result<TcpStream, String> {
    let name = &pinned.target.name;
    let mut last = None;
    for address in &pinned.addresses {
        match timeout(pinned.target.connect_timeout, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                prepare(&stream);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                last = Some(format!("the target \"{name}\" ({address}) cannot be reached: {error}"))
            }
            Err(_) => {
                let within = pinned.target.connect_timeout.as_millis();
                last = Some(format!("the target \"{name}\" ({address}) does not answer within {within} ms"));
            }
        }
    }
    Err(last.unwrap_or_else(|| format!("the target \"{name}\" has no address")))
}

/// Sets what every end of a link has. Without these options it is only slower, or kept for longer.
pub fn prepare(stream: &TcpStream) {
    // A command must not wait for more to fill a segment.
    drop(stream.set_nodelay(true));
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 3);
    drop(SockRef::from(stream).set_tcp_keepalive(&keepalive));
}

/// From now on closing it resets it.
fn reset(stream: &TcpStream) {
    drop(SockRef::from(stream).set_linger(Some(Duration::ZERO)));
}

/// From now on closing it sends what waits to be sent.
fn let_finish(stream: &TcpStream) {
    drop(SockRef::from(stream).set_linger(None));
}

impl Link<'_> {
    async fn run(&mut self, listener: &Arc<Listener>, peer: Peer) -> End {
        let mut alarm = std::pin::pin!(sleep(Duration::ZERO));
        loop {
            match poll_fn(|cx| self.poll(cx, alarm.as_mut())).await {
                Step::Over(end) => return end,
                Step::Ask(content, origin) => {
                    let caller = listener.caller();
                    match Driving::begin(listener.means(), &caller, &origin, peer, &listener.pinned).await {
                        Ok(driving) => {
                            self.facts.note_driving();
                            self.driving = Some(driving);
                        }
                        // What asks for standing still goes on all the same.
                        Err(_) if !content.needs_grant => {
                            self.refused_until = Nanos::now().after(BEFORE_ASKING_AGAIN);
                        }
                        Err(end) => return end,
                    }
                }
            }
        }
    }

    /// Goes on until nothing can be done right now.
    fn poll(&mut self, cx: &mut Context<'_>, alarm: Pin<&mut Sleep>) -> Poll<Step> {
        loop {
            let up = match self.poll_up(cx) {
                Ok(progress) => progress,
                Err(end) => return Poll::Ready(Step::Over(end)),
            };
            if let Some((content, origin)) = self.asks.take() {
                return Poll::Ready(Step::Ask(content, origin));
            }
            let down = match self.poll_down(cx) {
                Ok(progress) => progress,
                Err(end) => return Poll::Ready(Step::Over(end)),
            };
            if self.up.closed && self.down.closed {
                return Poll::Ready(Step::Over(End::ClientLeft));
            }
            if !up && !down {
                break;
            }
        }
        match &mut self.driving {
            Some(driving) => driving.poll_end(cx, alarm).map(Step::Over),
            None => Poll::Pending,
        }
    }

    /// Something from the client to the target. Whether there was anything to do.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if !self.up.waiting.is_empty() {
            if let Some(driving) = &mut self.driving {
                driving.look(Nanos::now())?;
            }
            return flush(&mut self.target, &mut self.up, cx, |sent| self.facts.note_to_target(sent))
                .map_err(|error| lost(&error));
        }
        if self.up.ended {
            return self.end_up(cx);
        }
        buffer::with(|come| {
            match Pin::new(&mut self.client).poll_read(cx, come) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(_)) => return Err(End::ClientLeft),
                Poll::Ready(Ok(())) => {}
            }
            if come.filled().is_empty() {
                self.up.ended = true;
                return Ok(true);
            }
            self.pass_up(come.filled(), cx)?;
            Ok(true)
        })
    }

    fn pass_up(&mut self, come: &[u8], cx: &mut Context<'_>) -> Result<(), End> {
        let now = Nanos::now();
        self.facts.note_heard(now);
        let mut sifted = std::mem::take(&mut self.sifted);
        sifted.clear();
        let standing = if self.driving.is_some() { Standing::Drives } else { self.listener.standing() };
        let (content, on) = self.reader.read(come, standing, &mut sifted, &mut self.down.waiting)?;
        self.listener.note_content(&content);
        let origin = self.listener.origin(&self.connection);
        if content.acknowledges() {
            self.listener.means().acknowledge(&origin, &content);
        }
        if self.down.waiting.len() > MOST_UNREAD {
            return Err(End::Refused("its client does not read what it is answered".to_owned()));
        }
        let passed = self.pass_on(content, origin, on, now, cx);
        self.sifted = sifted;
        passed
    }

    fn pass_on(
        &mut self,
        content: Content,
        origin: Origin,
        on: &[u8],
        now: Nanos,
        cx: &mut Context<'_>,
    ) -> Result<(), End> {
        match &mut self.driving {
            Some(driving) => driving.heard(&content, now)?,
            None if self.listener.must_drive(&content, now, self.refused_until) => {
                self.asks = Some((content, origin));
                self.up.waiting.extend_from_slice(on);
                return Ok(());
            }
            None => {}
        }
        send(&mut self.target, &mut self.up, on, cx, |sent| self.facts.note_to_target(sent))
            .map_err(|error| lost(&error))
    }

    /// The client has sent its last.
    fn end_up(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.driving.is_some() {
            return Err(End::ClientLeft);
        }
        pass_end(&mut self.target, &mut self.up, cx).map_err(|error| lost(&error))
    }

    /// Something from the target to the client. Whether there was anything to do.
    fn poll_down(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let facts = self.facts;
        let noted = |sent| facts.note_to_client(sent);
        if !self.down.waiting.is_empty() {
            return flush(&mut self.client, &mut self.down, cx, noted).map_err(|_| End::ClientLeft);
        }
        if self.down.ended {
            if self.driving.is_some() {
                return Err(End::TargetLeft);
            }
            return pass_end(&mut self.client, &mut self.down, cx).map_err(|_| End::ClientLeft);
        }
        buffer::with(|come| {
            match Pin::new(&mut self.target).poll_read(cx, come) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(lost(&error)),
                Poll::Ready(Ok(())) => {}
            }
            if come.filled().is_empty() {
                self.down.ended = true;
                return Ok(true);
            }
            send(&mut self.client, &mut self.down, come.filled(), cx, noted).map_err(|_| End::ClientLeft)?;
            Ok(true)
        })
    }

    /// Closes both ends, the target's first, and only then what it drove.
    fn end(self, end: &End) {
        let Self { client, target, driving, .. } = self;
        match end {
            // What its client has sent before it left was sent in time.
            End::ClientLeft => let_finish(&target),
            End::TargetLeft => {}
            End::Closed
            | End::Silent(_)
            | End::Slow { .. }
            | End::TooFast(_)
            | End::TargetLost(_)
            | End::Lost(_)
            | End::Refused(_) => {
                reset(&target);
                reset(&client);
            }
        }
        drop(target);
        if let Some(driving) = driving {
            driving.end(end);
        }
        drop(client);
    }
}

fn lost(error: &io::Error) -> End {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected => {
            End::TargetLeft
        }
        _ => End::TargetLost(error.to_string()),
    }
}

/// Sends what waits. Whether anything went.
fn flush(
    to: &mut TcpStream,
    direction: &mut Direction,
    cx: &mut Context<'_>,
    sent: impl Fn(usize),
) -> io::Result<bool> {
    match Pin::new(to).poll_write(cx, &direction.waiting) {
        Poll::Pending => Ok(false),
        Poll::Ready(written) => {
            let written = written?;
            sent(written);
            direction.waiting.drain(..written);
            if direction.waiting.is_empty() {
                // A link that is idle has no buffer.
                direction.waiting = Vec::new();
            }
            Ok(true)
        }
    }
}

/// Sends what has come, and keeps what does not go at once.
fn send(
    to: &mut TcpStream,
    direction: &mut Direction,
    come: &[u8],
    cx: &mut Context<'_>,
    sent: impl Fn(usize),
) -> io::Result<()> {
    let written = if direction.waiting.is_empty() && !come.is_empty() {
        match Pin::new(to).poll_write(cx, come) {
            Poll::Pending => 0,
            Poll::Ready(written) => written?,
        }
    } else {
        0
    };
    sent(written);
    direction.waiting.extend_from_slice(come.get(written..).unwrap_or_default());
    Ok(())
}

/// Passes an end on. Whether that was done just now.
fn pass_end(to: &mut TcpStream, direction: &mut Direction, cx: &mut Context<'_>) -> io::Result<bool> {
    if direction.closed {
        return Ok(false);
    }
    match Pin::new(to).poll_shutdown(cx) {
        Poll::Pending => Ok(false),
        Poll::Ready(done) => {
            done?;
            direction.closed = true;
            Ok(true)
        }
    }
}

/// Both ends of a client's connection.
pub fn peer(remote: SocketAddr, local: SocketAddr) -> Peer {
    Peer { remote: Some(remote), local: Some(local) }
}
