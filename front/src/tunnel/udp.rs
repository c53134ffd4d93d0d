//! Links of UDP: datagrams there and back, whole or not at all.
//!
//! The first address that sends has the listener; those of others are dropped, and are no sign of life. A datagram that
//! cannot go on at once is lost, as it could be on any network: one that waits would be an old command later.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use shm_proto::Nanos;
use tokio::net::UdpSocket;
use tokio::time::{Sleep, sleep};

use super::buffer;
use super::content::{Content, Fault};
use super::drive::{Driving, End};
use super::listeners::Listener;
use super::reach::{Refusal, Standing};
use super::reader::Reader;
use super::targets::Pinned;
use super::tcp::{BEFORE_ASKING_AGAIN, peer};
use crate::order::Origin;
use crate::transport::Connection;

/// Datagrams in a row before others get their turn.
const IN_A_ROW: usize = 64;

/// A socket towards a target, which hears nobody else.
///
/// # Errors
///
/// When there is none to be had, in words.
pub async fn towards(pinned: &Pinned) -> Result<UdpSocket, String> {
    let name = &pinned.target.name;
    let Some(address) = pinned.addresses.first() else {
        return Err(format!("the target \"{name}\" has no address"));
    };
    let any = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let source = pinned.target.source.unwrap_or(SocketAddr::new(any, 0));
    let failed =
        |error: io::Error| format!("no socket from {source} to the target \"{name}\" ({address}): {error}");
    let socket = UdpSocket::bind(source).await.map_err(failed)?;
    socket.connect(address).await.map_err(failed)?;
    Ok(socket)
}

/// Who has a listener.
#[derive(Clone, Copy, Debug)]
struct Holder {
    address: SocketAddr,
    heard: Nanos,
}

/// A link: the listener's own socket, and one towards the target.
struct Link<'a> {
    listener: &'a Listener,
    socket: &'a UdpSocket,
    target: UdpSocket,
    holding: &'a mut Holding,
    reader: Reader,
    sifted: Vec<u8>,
    back: Vec<u8>,
    /// A datagram that waits for the right to go on, and when it came.
    asks: Option<(Vec<u8>, Content, Origin)>,
    connection: Option<Arc<Connection>>,
    /// Before this, what asks for standing still goes on without the motors being granted.
    refused_until: Nanos,
    driving: Option<Driving>,
    number: Option<u128>,
}

enum Step {
    Ask(Vec<u8>, Content, Origin),
    Over(End),
}

/// Serves whoever comes first, until that link is over. `target` is a socket that was made in advance.
pub async fn serve(
    listener: &Arc<Listener>,
    socket: &UdpSocket,
    target: Option<UdpSocket>,
    holding: &mut Holding,
) -> End {
    let target = match target {
        Some(target) => target,
        None => match towards(&listener.pinned).await {
            Ok(target) => target,
            Err(why) => return End::Refused(why),
        },
    };
    let mut link = Link {
        listener,
        socket,
        target,
        holding,
        reader: listener.reader(),
        sifted: Vec::new(),
        back: Vec::new(),
        asks: None,
        connection: None,
        refused_until: Nanos::ZERO,
        driving: None,
        number: None,
    };
    let end = tokio::select! {
        end = link.run(listener) => end,
        () = listener.closed() => End::Closed,
    };
    link.end(&end);
    end
}

/// Who has a listener, from link to link.
#[derive(Debug, Default)]
pub struct Holding {
    holder: Option<Holder>,
    /// The last link was cut: even who had it must have been silent before there is another.
    barred: bool,
}

impl Holding {
    /// The link of who has it was cut.
    pub const fn bar(&mut self) {
        self.barred = true;
    }
}

impl Link<'_> {
    async fn run(&mut self, listener: &Arc<Listener>) -> End {
        let mut alarm = std::pin::pin!(sleep(Duration::ZERO));
        loop {
            match poll_fn(|cx| self.poll(cx, alarm.as_mut())).await {
                Step::Over(end) => return end,
                Step::Ask(first, content, origin) => {
                    let Some(holder) = self.holding.holder else { continue };
                    let peer = peer(holder.address, listener.address);
                    let caller = listener.caller();
                    match Driving::begin(listener.means(), &caller, &origin, peer, &listener.pinned).await {
                        Ok(driving) => {
                            listener.facts.note_driving();
                            // The grant may have taken longer than the window: what has waited for it is old then.
                            if let Err(end) = self.driving.insert(driving).look(Nanos::now()) {
                                return end;
                            }
                        }
                        // What asks for standing still goes on all the same.
                        Err(_) if !content.needs_grant => {
                            self.refused_until = Nanos::now().after(BEFORE_ASKING_AGAIN);
                        }
                        Err(end) => return end,
                    }
                    if let Err(end) = self.pass(&first) {
                        return end;
                    }
                }
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, alarm: Pin<&mut Sleep>) -> Poll<Step> {
        for _ in 0..IN_A_ROW {
            let up = match self.poll_up(cx) {
                Ok(progress) => progress,
                Err(end) => return Poll::Ready(Step::Over(end)),
            };
            if let Some((first, content, origin)) = self.asks.take() {
                return Poll::Ready(Step::Ask(first, content, origin));
            }
            match self.poll_down(cx) {
                Ok(down) if down || up => {}
                Ok(_) => break,
                Err(end) => return Poll::Ready(Step::Over(end)),
            }
        }
        match &mut self.driving {
            Some(driving) => {
                // That nobody is there wakes no reader: it is looked for as often as the grant is.
                if let Ok(Some(error)) = self.target.take_error() {
                    return Poll::Ready(Step::Over(End::TargetLost(error.to_string())));
                }
                driving.poll_end(cx, alarm).map(Step::Over)
            }
            None => Poll::Pending,
        }
    }

    /// A datagram of a client's. Whether there was one.
    fn poll_up(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        buffer::with(|come| {
            let from = match self.socket.poll_recv_from(cx, come) {
                Poll::Pending => return Ok(false),
                // What an earlier answer met on its way: its client does not listen any more.
                Poll::Ready(Err(_)) => return Ok(true),
                Poll::Ready(Ok(from)) => from,
            };
            let now = Nanos::now();
            if !self.is_holder(from, now) {
                self.listener.facts.note_refused(None);
                return Ok(true);
            }
            self.listener.facts.note_heard(now);
            let datagram = come.filled();
            self.sifted.clear();
            self.back.clear();
            let standing = if self.driving.is_some() { Standing::Drives } else { self.listener.standing() };
            let content = match self.reader.read(datagram, standing, &mut self.sifted, &mut self.back) {
                Ok((content, _)) => content,
                Err(fault @ Fault::Refused(Refusal::TooFast { .. })) => return Err(fault.into()),
                Err(fault) => {
                    self.listener.note_refused(&fault.to_string());
                    return Ok(true);
                }
            };
            let origin = self.origin(from);
            if content.acknowledges() {
                self.listener.means().acknowledge(&origin, &content);
            }
            match &mut self.driving {
                Some(driving) => driving.heard(&content, now)?,
                None if self.listener.must_drive(&content, now, self.refused_until) => {
                    self.asks = Some((datagram.to_vec(), content, origin));
                    return Ok(true);
                }
                None => {}
            }
            self.pass(datagram)?;
            Ok(true)
        })
    }

    /// Whether that is who has the listener, or may have it from now on.
    fn is_holder(&mut self, from: SocketAddr, now: Nanos) -> bool {
        let relock = self.listener.pinned.target.relock;
        let Holding { holder, barred } = &mut *self.holding;
        let rested = |holder: &Holder| {
            relock.is_some_and(|relock| u128::from(now.since(holder.heard)) >= relock.as_nanos())
        };
        match holder {
            Some(holder) if holder.address == from => {
                let may = !*barred || rested(holder);
                holder.heard = now;
                if !may {
                    return false;
                }
            }
            Some(holder) if self.driving.is_some() || !rested(holder) => return false,
            Some(_) | None => {
                if !self.listener.admits(from.ip()) {
                    return false;
                }
                self.reader = self.listener.reader();
                self.connection = None;
                *holder = Some(Holder { address: from, heard: now });
                self.leave();
            }
        }
        self.holding.barred = false;
        if self.number.is_none() {
            self.number = Some(self.listener.enter());
        }
        true
    }

    /// Names what that address, which has the listener, has just sent.
    fn origin(&mut self, from: SocketAddr) -> Origin {
        let listener = self.listener;
        let connection =
            self.connection.get_or_insert_with(|| listener.connection(peer(from, listener.address)));
        listener.origin(connection)
    }

    fn leave(&mut self) {
        if let Some(number) = self.number.take() {
            self.listener.facts.note_left(number);
        }
    }

    /// Sends a datagram on. One that finds no room is lost, as on any network.
    fn pass(&self, datagram: &[u8]) -> Result<(), End> {
        match self.target.try_send(datagram) {
            Ok(sent) => self.listener.facts.note_to_target(sent),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    self.lose(&error)?;
                }
                self.listener.facts.note_refused(Some(&format!("a datagram did not go on: {error}")));
            }
        }
        Ok(())
    }

    /// The target's side has failed: what is driven through it cannot be told to stop any more.
    fn lose(&self, error: &io::Error) -> Result<(), End> {
        if self.driving.is_some() { Err(End::TargetLost(error.to_string())) } else { Ok(()) }
    }

    /// A datagram of the target's. Whether there was one.
    fn poll_down(&self, cx: &mut Context<'_>) -> Result<bool, End> {
        buffer::with(|come| {
            match self.target.poll_recv(cx, come) {
                Poll::Pending => return Ok(false),
                // What an earlier datagram met on its way: nobody is there.
                Poll::Ready(Err(error)) => return self.lose(&error).map(|()| true),
                Poll::Ready(Ok(())) => {}
            }
            if let Some(holder) = &self.holding.holder
                && let Ok(sent) = self.socket.try_send_to(come.filled(), holder.address)
            {
                self.listener.facts.note_to_client(sent);
            }
            Ok(true)
        })
    }

    /// Closes the target's socket, and only then what it drove.
    fn end(mut self, end: &End) {
        self.leave();
        let Self { target, driving, .. } = self;
        drop(target);
        if let Some(driving) = driving {
            driving.end(end);
        }
    }
}
