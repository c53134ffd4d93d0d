//! A client as Viam's SDKs are one: a session that beats, and commands under it. Written anew from the wire, because
//! the SDK for Python alone would be half of this machine.

use std::fs::File;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns};
use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval, sleep};
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

const START_SESSION: &str = "/viam.robot.v1.RobotService/StartSession";
const HEARTBEAT: &str = "/viam.robot.v1.RobotService/SendSessionHeartbeat";
const SET_RPM: &str = "/viam.component.motor.v1.MotorService/SetRPM";
/// The header that says whose command it is.
const SESSION: &str = "viam-sid";

/// As the SDKs: five beats in a window.
const BEATS_PER_WINDOW: u32 = 5;
/// How long a front may take to listen after it was started, and a command to be answered: only says when to give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// `StartSessionRequest` and `SendSessionHeartbeatRequest`.
#[derive(Clone, PartialEq, Message)]
struct Text {
    #[prost(string, tag = "1")]
    id: String,
}

/// The answer to `StartSession`, as far as it matters.
#[derive(Clone, PartialEq, Message)]
struct Session {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    window: Option<Span>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, Copy, PartialEq, Message)]
struct Span {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

impl Session {
    /// The pause between two beats.
    fn beat(&self) -> Result<Duration> {
        let span = self.window.context("a session without a window")?;
        let window = Duration::new(span.seconds.try_into()?, span.nanos.try_into()?);
        ensure!(!window.is_zero(), "a session whose window is 0");
        Ok(window / BEATS_PER_WINDOW)
    }
}

/// `SetRPMRequest`.
#[derive(Clone, PartialEq, Message)]
struct Rpm {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(double, tag = "2")]
    rpm: f64,
}

/// An answer with nothing in it.
#[derive(Clone, Copy, PartialEq, Message)]
struct Empty {}

enum Order {
    Turn { motor: String, rpm: f64, answer: oneshot::Sender<Result<()>> },
    FallSilent { done: oneshot::Sender<()> },
}

/// A connected client with a session. When it is dropped its connection closes.
#[derive(Debug)]
pub struct Client {
    orders: Option<mpsc::UnboundedSender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Connects, opens a session, and beats from now on.
    ///
    /// # Errors
    /// Nobody listens there in time, or there is no session.
    pub fn connect(address: &str) -> Result<Self> {
        Self::start(address.to_owned(), None)
    }

    /// The same from within a network namespace (`ip netns`).
    ///
    /// # Errors
    /// See [`Client::connect`]; or there is no such namespace.
    pub fn connect_from(namespace: &str, address: &str) -> Result<Self> {
        let file = File::open(format!("/run/netns/{namespace}")).context("no such network namespace")?;
        Self::start(address.to_owned(), Some(file))
    }

    fn start(address: String, namespace: Option<File>) -> Result<Self> {
        let (orders, receiver) = mpsc::unbounded_channel();
        let (tell, told) = std::sync::mpsc::channel();
        let run = move || {
            let outcome = namespace.map_or(Ok(()), |file| setns(file, CloneFlags::CLONE_NEWNET));
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match (outcome, runtime) {
                (Ok(()), Ok(runtime)) => runtime.block_on(serve(&address, receiver, tell)),
                (outcome, runtime) => {
                    let error = anyhow!("namespace: {outcome:?}, runtime: {:?}", runtime.err());
                    let _ = tell.send(Err(error));
                }
            }
        };
        let thread = std::thread::Builder::new().name("client".to_owned()).spawn(run)?;
        told.recv().context("the client has ended")??;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Has a motor turn.
    ///
    /// # Errors
    /// The front refuses.
    pub fn turn(&self, motor: &str, rpm: f64) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Turn { motor: motor.to_owned(), rpm, answer })?;
        answered.blocking_recv().context("the client has ended")?
    }

    /// Beats no more; the connection stays open. Returns when the last beat is out.
    ///
    /// # Errors
    /// The client has ended.
    pub fn fall_silent(&self) -> Result<()> {
        let (done, is_done) = oneshot::channel();
        self.order(Order::FallSilent { done })?;
        is_done.blocking_recv().context("the client has ended")
    }

    fn order(&self, order: Order) -> Result<()> {
        let orders = self.orders.as_ref().context("only taken away when it is dropped")?;
        orders.send(order).map_err(|_| anyhow!("the client has ended"))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // It cannot fail but by a panic, which has been shown.
            drop(thread.join());
        }
    }
}

async fn serve(
    address: &str,
    mut orders: mpsc::UnboundedReceiver<Order>,
    tell: std::sync::mpsc::Sender<Result<()>>,
) {
    let (channel, session, pause) = match open(address).await {
        Ok(opened) => opened,
        Err(error) => return drop(tell.send(Err(error))),
    };
    let for_beats = (channel.clone(), session.clone());
    let beats = tokio::spawn(async move {
        let (channel, id) = for_beats;
        let mut beat = interval(pause);
        loop {
            beat.tick().await;
            // A front that is gone is what the tests are about; a new client finds the next one.
            let _: Result<Empty> = call(&channel, HEARTBEAT, Text { id: id.clone() }, None).await;
        }
    });
    let _ = tell.send(Ok(()));
    while let Some(order) = orders.recv().await {
        match order {
            Order::Turn { motor, rpm, answer } => {
                let message = Rpm { name: motor, rpm };
                let outcome: Result<Empty> = call(&channel, SET_RPM, message, Some(&session)).await;
                let _ = answer.send(outcome.map(drop));
            }
            Order::FallSilent { done } => {
                beats.abort();
                let _ = done.send(());
            }
        }
    }
    beats.abort();
}

async fn open(address: &str) -> Result<(Channel, String, Duration)> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let begun = Instant::now();
    let channel = loop {
        match endpoint.connect().await {
            Ok(channel) => break channel,
            Err(error) if begun.elapsed() > PATIENCE => return Err(error).context("nobody listens"),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    };
    let opened: Session = call(&channel, START_SESSION, Text::default(), None).await?;
    let pause = opened.beat()?;
    Ok((channel, opened.id, pause))
}

async fn call<Q, A>(channel: &Channel, path: &'static str, message: Q, session: Option<&str>) -> Result<A>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let mut request = Request::new(message);
    if let Some(session) = session {
        request.metadata_mut().insert(SESSION, MetadataValue::try_from(session)?);
    }
    request.set_timeout(PATIENCE);
    let codec = ProstCodec::<Q, A>::default();
    Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}
