//! Heartbeats a second through the front, beside an echo server of bare tonic: same messages, same client, same
//! settings of the runtime, in turns.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use config::Config;
use drivers::Frame;
use front::{Outlet, SendError};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::http::{self, uri::PathAndQuery};
use tonic::codegen::{BoxFuture, Context as TaskContext, Poll, Service};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::child::{Background, hush, role};
use super::figures::Figures;
use super::progress;
use super::realtime;
use super::supervise::{self, Program};

/// What this measures.
pub const NAMES: &[&str] = &["front.heartbeats_per_s", "front.bare_tonic_per_s"];

/// Clients, each with a connection and a session of its own.
const CLIENTS: usize = 32;
/// Both take turns, so that both see the same machine.
const SLICES: usize = 8;
const SLICE: Duration = Duration::from_millis(1_000);
/// Before the first slice: connections and caches warm up.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long a server may take to come up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A session is asked for.
pub const START_SESSION: &str = "/viam.robot.v1.RobotService/StartSession";
/// A session beats.
pub const HEARTBEAT: &str = "/viam.robot.v1.RobotService/SendSessionHeartbeat";
const ECHO: &str = "/bench.Echo/Echo";

/// `StartSessionRequest`, and the answer as far as it matters; `SendSessionHeartbeatRequest` is of the same kind.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Text {
    /// The text.
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `SendSessionHeartbeatResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Empty {}

/// Measures both.
///
/// # Errors
/// A server does not come up, or a call fails.
pub fn measure(figures: &mut Figures) -> Result<()> {
    let (ours, bare) = (free_address()?, free_address()?);
    let supervisor = supervise::start(Program::Sink, 64, &ours)?;
    let mut front = role("front", [&supervisor.file])?;
    hush(&mut front);
    let _front = Background::start(&mut front)?;
    let _echo = Background::start(&mut role("echo", [&bare])?)?;
    runtime()?.block_on(async {
        let mut fronts = connect_all(&ours).await?;
        let mut echoes = connect_all(&bare).await?;
        for client in &mut fronts {
            let opened: Text = client.call(START_SESSION, Text::default()).await?;
            client.text = opened;
            client.path = HEARTBEAT;
        }
        for (echo, front) in echoes.iter_mut().zip(&fronts) {
            echo.text = front.text.clone();
            echo.path = ECHO;
        }
        calls_per_second(&mut fronts, WARM_UP).await?;
        calls_per_second(&mut echoes, WARM_UP).await?;
        let (mut ours, mut bare) = (0.0, 0.0);
        for slice in 1..=SLICES {
            progress(&format!("heartbeats and echoes, slice {slice} of {SLICES}"));
            ours += calls_per_second(&mut fronts, SLICE).await?;
            bare += calls_per_second(&mut echoes, SLICE).await?;
        }
        let slices = f64::from(u32::try_from(SLICES)?);
        figures.note("front.heartbeats_per_s", ours / slices);
        figures.note("front.bare_tonic_per_s", bare / slices);
        Ok(())
    })
}

/// An address that nobody listens on just now.
///
/// # Errors
/// There is none.
pub fn free_address() -> Result<String> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

/// The runtime of client and echo server, built as the front builds its own.
///
/// # Errors
/// The system refuses it.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |cpus| cpus.get().max(2));
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("no runtime")
}

/// A connection and what is called on it.
pub struct Client {
    grpc: Grpc<Channel>,
    /// The message of its next call.
    pub text: Text,
    /// The method of its next call.
    pub path: &'static str,
}

impl Client {
    /// A client that echoes until it is told otherwise.
    pub fn new(channel: Channel) -> Self {
        Self { grpc: Grpc::new(channel), text: Text::default(), path: ECHO }
    }

    /// Another one over the same connection.
    pub fn another(&self) -> Self {
        Self { grpc: self.grpc.clone(), text: self.text.clone(), path: self.path }
    }

    /// One call.
    ///
    /// # Errors
    /// It is refused.
    pub async fn call<T: prost::Message + Default + 'static>(
        &mut self,
        path: &'static str,
        message: Text,
    ) -> Result<T> {
        self.grpc.ready().await?;
        let codec = ProstCodec::<Text, T>::default();
        let path = PathAndQuery::from_static(path);
        Ok(self.grpc.unary(Request::new(message), path, codec).await?.into_inner())
    }
}

/// All clients, connected, each about to call the echo.
///
/// # Errors
/// Nobody listens there.
pub async fn connect_all(address: &str) -> Result<Vec<Client>> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let channel = connect(&endpoint).await?;
        clients.push(Client::new(channel));
    }
    Ok(clients)
}

/// A connection, as soon as there is somebody to connect to.
///
/// # Errors
/// There is nobody for too long.
pub async fn connect(endpoint: &Endpoint) -> Result<Channel> {
    let begun = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return Ok(channel),
            Err(error) if begun.elapsed() > PATIENCE => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

/// All clients call, each again as soon as it is answered.
///
/// # Errors
/// A call fails.
pub async fn calls_per_second(clients: &mut Vec<Client>, time: Duration) -> Result<f64> {
    let begun = Instant::now();
    let end = begun + time;
    let calling: Vec<_> = clients
        .drain(..)
        .map(|mut client| {
            tokio::spawn(async move {
                let mut calls = 0_u32;
                while Instant::now() < end {
                    let Empty {} = client.call(client.path, client.text.clone()).await?;
                    calls += 1;
                }
                anyhow::Ok((client, calls))
            })
        })
        .collect();
    let mut total = 0;
    for calling in calling {
        let (client, calls) = calling.await??;
        clients.push(client);
        total += calls;
    }
    Ok(f64::from(total) / begun.elapsed().as_secs_f64())
}

/// The role `front`: the real front, with a wire that goes nowhere, on one core if it is named.
///
/// # Errors
/// As the front's own.
pub fn serve_front(config: &Path, core: Option<usize>) -> Result<()> {
    core.map_or(Ok(()), realtime::pin)?;
    front::run(Config::load(config)?, Outlet::Wires(vec![Arc::new(NoWire)]))
}

/// Takes every frame: nothing is moved in this measurement.
struct NoWire;

impl front::Wire for NoWire {
    fn send(&self, _frame: &Frame) -> Result<(), SendError> {
        Ok(())
    }
}

/// The role `echo`: a server of bare tonic that answers as the front does, and does nothing else; on one core if it
/// is named.
///
/// # Errors
/// It cannot listen there.
pub fn serve_echo(address: &str, core: Option<usize>) -> Result<()> {
    core.map_or(Ok(()), realtime::pin)?;
    runtime()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        let incoming = TcpListenerStream::new(listener);
        let incoming = tokio_stream::StreamExt::map(incoming, |stream| {
            stream.and_then(|stream| stream.set_nodelay(true).map(|()| stream))
        });
        Server::builder().add_service(Echo).add_service(Stuck).serve_with_incoming(incoming).await?;
        Ok(())
    })
}

/// The service, as tonic's generator would write it.
#[derive(Clone, Copy, Debug)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<Empty, Text>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Answer, request).await)
        })
    }
}

/// A service whose methods never return.
#[derive(Clone, Copy, Debug)]
struct Stuck;

impl NamedService for Stuck {
    const NAME: &'static str = "viam.component.arm.v1.ArmService";
}

impl Service<http::Request<Body>> for Stuck {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = std::future::Pending<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::pending()
    }
}

/// The method.
#[derive(Clone, Copy, Debug)]
struct Answer;

impl UnaryService<Text> for Answer {
    type Response = Empty;
    type Future = Ready<Result<Response<Empty>, Status>>;

    fn call(&mut self, _: Request<Text>) -> Self::Future {
        ready(Ok(Response::new(Empty {})))
    }
}
