//! One connection to the base: calls go there under numbers of their own, answers come back to whoever asked.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::frame::{Frame, Header, Kind, MessageNumber, Method, SessionNumber};
use super::super::refusal::{Refusal, Sub};
use super::super::stream;
use super::mqtt::Broker;
use super::turns::Turn;

/// Calls that may wait for their turn to be sent.
const MOST_QUEUED: usize = 64;
/// Calls that may wait for their answers; the oldest is given up for a newer one.
const MOST_PENDING: usize = 256;
/// What is read at a time.
const PIECE: usize = 8 * 1024;
/// Largest datagram there is.
const MOST_DATAGRAM: usize = 65_507;

/// Where the base is.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over UDP.
    Udp(SocketAddr),
    /// Over MQTT.
    Mqtt(SocketAddr),
}

/// A call to be made there.
#[derive(Debug)]
pub struct Call {
    /// What is called.
    pub method: Method,
    /// Of which device.
    pub device: u8,
    /// In which of the base's sessions.
    pub session: SessionNumber,
    /// Its message.
    pub payload: Bytes,
    /// Its place among the calls of its session, if it has one.
    pub turn: Option<Turn>,
}

impl Call {
    /// A call of the base itself without a message, which waits for no other and lets none wait.
    #[must_use]
    pub const fn plain(method: Method, session: SessionNumber) -> Self {
        Self { method, device: 0, session, payload: Bytes::new(), turn: None }
    }
}

struct Order {
    header: Header,
    payload: Bytes,
    answer: oneshot::Sender<Frame>,
}

/// The connection.
#[derive(Debug)]
pub struct Line {
    orders: mpsc::Sender<Order>,
    /// When the base said something last.
    heard: watch::Receiver<Instant>,
}

enum Wire {
    Tcp { stream: TcpStream, come: BytesMut },
    Udp { socket: UdpSocket, datagram: Vec<u8> },
    Mqtt(Broker),
}

impl Wire {
    async fn connect(place: Place) -> io::Result<Self> {
        match place {
            Place::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // A Stop must not wait for more to fill a segment.
                stream.set_nodelay(true)?;
                Ok(Self::Tcp { stream, come: BytesMut::with_capacity(PIECE) })
            }
            Place::Udp(address) => {
                let any: SocketAddr =
                    if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 8], 0).into() };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(address).await?;
                Ok(Self::Udp { socket, datagram: vec![0; MOST_DATAGRAM] })
            }
            Place::Mqtt(address) => Broker::connect(address).await.map(Self::Mqtt),
        }
    }

    /// The next frame. May be dropped at any time and asked again.
    async fn receive(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Tcp { stream, come } => loop {
                if let Some(frame) = stream::take(come).map_err(io::Error::other)? {
                    return Ok(frame);
                }
                if stream.read_buf(come).await? == 0 {
                    return Err(io::Error::other("the base closed the connection"));
                }
            },
            Self::Udp { socket, datagram } => {
                let length = socket.recv(datagram).await?;
                Ok(Bytes::copy_from_slice(&datagram[..length]))
            }
            Self::Mqtt(broker) => broker.receive().await,
        }
    }

    /// Has the base tell of these topics, and of no others. Over TCP and UDP it is a call that asks for it.
    fn follow(&mut self, topics: &BTreeSet<Method>) -> io::Result<()> {
        match self {
            Self::Tcp { .. } | Self::Udp { .. } => Ok(()),
            Self::Mqtt(broker) => broker.follow(topics),
        }
    }

    async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        match self {
            Self::Tcp { stream, .. } => stream.write_all(&stream::put(&frame.encode())).await,
            Self::Udp { socket, .. } => socket.send(&frame.encode()).await.map(drop),
            Self::Mqtt(broker) => broker.send(frame).await,
        }
    }
}

impl Line {
    /// Connects. What comes without having been asked for goes to `news`; over MQTT those topics are subscribed to for it. The
    /// future that comes with it resolves when the connection ends, and says why.
    ///
    /// # Errors
    ///
    /// When the base is not reached.
    pub async fn open(
        place: Place,
        patience: Duration,
        wanted: watch::Receiver<BTreeSet<Method>>,
        news: impl Fn(Frame) + Send + 'static,
    ) -> Result<(Arc<Self>, impl Future<Output = String> + Send), Refusal> {
        let (Place::Tcp(address) | Place::Udp(address) | Place::Mqtt(address)) = place;
        let unreached = |why: String| {
            let text = format!("the base {address} is not reached: {why}");
            Refusal::device(Sub::RouterUnavailable, text)
        };
        let wire = match timeout(patience, Wire::connect(place)).await {
            Ok(Ok(wire)) => wire,
            Ok(Err(error)) => return Err(unreached(error.to_string())),
            Err(_) => return Err(unreached(format!("nobody answered within {} ms", patience.as_millis()))),
        };
        let (orders, queue) = mpsc::channel(MOST_QUEUED);
        let (ended, end) = oneshot::channel();
        let (hears, heard) = watch::channel(Instant::now());
        tokio::spawn(async move {
            let why = match converse(wire, queue, wanted, news, patience, &hears).await {
                Ok(()) => "its session is over".to_owned(),
                Err(error) => error.to_string(),
            };
            // Nobody may wait any more.
            drop(ended.send(why));
        });
        let end = async move { end.await.unwrap_or_else(|_| "its task has ended".to_owned()) };
        Ok((Arc::new(Self { orders, heard }), end))
    }

    /// Makes a call there. Returns the answer as it came.
    ///
    /// # Errors
    ///
    /// When the connection is gone, or there is no answer in time.
    pub async fn call(&self, call: Call, within: Duration) -> Result<Frame, Refusal> {
        let Call { method, device, session, payload, turn } = call;
        let header = Header {
            kind: Kind::Request,
            device,
            error: (0, 0),
            session,
            message: MessageNumber::default(),
            method,
        };
        let (answer, answered) = oneshot::channel();
        let gone = || Refusal::device(Sub::RouterUnavailable, "the connection to the base behind is lost");
        let asking = async {
            self.orders.send(Order { header, payload, answer }).await.map_err(|_| gone())?;
            // It is in line; the next one's place is behind it.
            drop(turn);
            answered.await.map_err(|_| gone())
        };
        timeout(within, asking).await.unwrap_or_else(|_| {
            let text = format!("the base behind has not answered within {} ms", within.as_millis());
            Err(Refusal::device(Sub::MethodTimeout, text))
        })
    }

    /// Returns when the base has said nothing for so long.
    pub async fn silent_for(&self, span: Duration) {
        loop {
            let until = *self.heard.borrow() + span;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

async fn converse(
    mut wire: Wire,
    mut queue: mpsc::Receiver<Order>,
    mut wanted: watch::Receiver<BTreeSet<Method>>,
    news: impl Fn(Frame) + Send,
    patience: Duration,
    heard: &watch::Sender<Instant>,
) -> io::Result<()> {
    let mut pending: HashMap<MessageNumber, oneshot::Sender<Frame>> = HashMap::new();
    let mut last = 0_u16;
    // Those that were wanted before.
    wanted.mark_changed();
    loop {
        tokio::select! {
            order = queue.recv() => {
                let Some(Order { mut header, payload, answer }) = order else { return Ok(()) };
                pending.retain(|_, waiting| !waiting.is_closed());
                if pending.len() >= MOST_PENDING {
                    // Whoever asked is told that the connection is lost, which it is for them.
                    continue;
                }
                last = last.wrapping_add(1);
                header.message = MessageNumber(last);
                pending.insert(header.message, answer);
                let frame = Frame { header, payload };
                let sent = timeout(patience, wire.send(&frame)).await;
                sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            }
            Ok(()) = wanted.changed() => wire.follow(&wanted.borrow_and_update())?,
            received = wire.receive() => {
                // What is no frame is for nobody.
                let Ok(frame) = Frame::read(&received?) else { continue };
                heard.send_replace(Instant::now());
                match frame.header.kind {
                    Kind::Response => {
                        if let Some(waiting) = pending.remove(&frame.header.message) {
                            // Nobody may wait any more.
                            drop(waiting.send(frame));
                        }
                    }
                    Kind::Notification => news(frame),
                    Kind::Request | Kind::Raw | Kind::Ping | Kind::Pong => {}
                }
            }
        }
    }
}
