//! An upstream for tests that does what a path asks for, at the level of HTTP/2 frames, and a client of that kind.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Only says when to give up.
pub const SOON: Duration = Duration::from_secs(10);

/// How long the Stop of a servo takes.
pub const SLOW_STOP: Duration = Duration::from_millis(300);

/// What the upstream has seen.
#[derive(Debug)]
pub enum Seen {
    /// A call has begun.
    Call(Box<Request<()>>),
    /// A call was reset by the other side.
    Reset(h2::Reason),
}

/// What an upstream says to all of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Word {
    /// Nothing.
    #[default]
    Nothing,
    /// New calls belong on another connection.
    Goodbye,
    /// You ping too often; it hangs up, as gRPC's own servers do.
    TooManyPings,
}

/// What all calls to one upstream share.
#[derive(Debug, Default)]
pub struct Shared {
    stops_failed: AtomicU32,
    logins: AtomicU32,
    words: watch::Sender<Word>,
    /// Set: calls with an `x-number` are carried out in any order, as if each ran on a thread of its own.
    disorder: Mutex<Option<Disorder>>,
    /// The `x-number` of each call that was carried out, in that order.
    done: Mutex<Vec<String>>,
}

/// Numbers that look like chance, the same ones for the same seed.
#[derive(Debug)]
struct Disorder(u64);

impl Disorder {
    /// How long a call is lying about, and how long its answer.
    fn pause(&mut self) -> Duration {
        // Knuth's MMIX generator; its high bits are the better ones.
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis((self.0 >> 33) % 25)
    }
}

/// The upstream. It is gone, with all of its connections, when this is dropped.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    stopped: watch::Sender<bool>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Backend {
    /// Starts one at a free port.
    pub async fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), 1000).await
    }

    /// Starts one here, which lets so many calls run at once.
    pub async fn start_at(address: SocketAddr, most_calls: u32) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let (sees, seen) = mpsc::unbounded_channel();
        let (stopped, stop) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let shared = Arc::<Shared>::default();
        tasks.spawn(accept(listener, sees, stop, most_calls, Arc::clone(&shared)));
        Self { address, seen, stopped, shared, _tasks: tasks }
    }

    /// From now on it carries calls with an `x-number` out in any order.
    pub fn disorder(&self, seed: u64) {
        *self.shared.disorder.lock().unwrap() = Some(Disorder(seed));
    }

    /// The numbers of the calls that it has carried out since it was asked last, in that order.
    pub fn done(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.done.lock().unwrap())
    }

    /// Says something to every connection that there is.
    pub fn says(&self, word: Word) {
        self.shared.words.send_replace(word);
    }

    /// The next thing it sees.
    pub async fn sees(&mut self) -> Seen {
        timeout(SOON, self.seen.recv()).await.expect("the upstream sees nothing").unwrap()
    }

    /// The next call it sees.
    pub async fn call(&mut self) -> Request<()> {
        match self.sees().await {
            Seen::Call(request) => *request,
            other @ Seen::Reset(_) => panic!("{other:?}"),
        }
    }

    /// Waits for the next reset, whatever else comes.
    pub async fn reset(&mut self) -> h2::Reason {
        loop {
            if let Seen::Reset(reason) = self.sees().await {
                return reason;
            }
        }
    }

    /// Everything it has seen by now.
    pub fn so_far(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    /// Waits for the call of a path, whatever else comes.
    pub async fn call_of(&mut self, path: &str) -> Request<()> {
        loop {
            if let Seen::Call(request) = self.sees().await
                && request.uri().path() == path
            {
                return *request;
            }
        }
    }

    /// Hangs, as a process does that was sent SIGSTOP, or goes on.
    pub fn hang(&self, hangs: bool) {
        self.stopped.send_replace(hangs);
    }
}

async fn accept(
    listener: TcpListener,
    sees: mpsc::UnboundedSender<Seen>,
    stopped: watch::Receiver<bool>,
    most_calls: u32,
    shared: Arc<Shared>,
) {
    let mut connections = JoinSet::new();
    loop {
        going_on(&stopped).await;
        let stream = listener.accept().await.unwrap().0;
        stream.set_nodelay(true).unwrap();
        connections.spawn(serve(stream, sees.clone(), stopped.clone(), most_calls, Arc::clone(&shared)));
    }
}

async fn going_on(stopped: &watch::Receiver<bool>) {
    drop(stopped.clone().wait_for(|stopped| !stopped).await);
}

/// Serves one connection.
pub async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    sees: mpsc::UnboundedSender<Seen>,
    stopped: watch::Receiver<bool>,
    most_calls: u32,
    shared: Arc<Shared>,
) {
    going_on(&stopped).await;
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(most_calls).initial_window_size(1 << 16);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut calls = JoinSet::new();
    let mut words = shared.words.subscribe();
    loop {
        let mut changed = stopped.clone();
        tokio::select! {
            biased;
            Ok(()) = words.changed() => match *words.borrow_and_update() {
                Word::Nothing => {}
                Word::Goodbye => connection.graceful_shutdown(),
                Word::TooManyPings => connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM),
            },
            () = async { drop(changed.wait_for(|stopped| *stopped).await) } => going_on(&stopped).await,
            accepted = connection.accept() => {
                let Some(Ok((request, respond))) = accepted else { break };
                calls.spawn(answer(request, respond, sees.clone(), Arc::clone(&shared)));
            }
        }
    }
    // The last of them may still have something to tell.
    while calls.join_next().await.is_some() {}
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    sees: mpsc::UnboundedSender<Seen>,
    shared: Arc<Shared>,
) {
    let (parts, mut body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let mut echoed = Response::new(());
    for (name, value) in &parts.headers {
        if name.as_str().starts_with("x-") {
            echoed.headers_mut().append(name.clone(), value.clone());
        }
    }
    let shown = parts.headers.get("authorization").cloned();
    let number = parts.headers.get("x-number").map(|number| number.to_str().unwrap().to_owned());
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("x-trailer-bin", "AAEC/w".parse().unwrap());
    // The front asks it whether it lives; that is no call of anybody.
    if path == "/grpc.health.v1.Health/Check" {
        return respond_with(respond, echoed, super::framed(&[8, 1]), trailers);
    }
    drop(sees.send(Seen::Call(Box::new(Request::from_parts(parts, ())))));
    if let Some(number) = number {
        // Whatever becomes of the call: its handler has begun.
        let pause = || shared.disorder.lock().unwrap().as_mut().map(Disorder::pause).unwrap_or_default();
        tokio::time::sleep(pause()).await;
        shared.done.lock().unwrap().push(number);
        tokio::time::sleep(pause()).await;
    }
    match path.as_str() {
        // Every piece comes back as soon as it is there.
        "/test.Echo/Echo" => {
            let mut stream = respond.send_response(echoed, false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                if send(&mut stream, data).await.is_err() {
                    drop(sees.send(Seen::Reset(h2::Reason::CANCEL)));
                    return;
                }
            }
            drop(stream.send_trailers(trailers));
        }
        // An error without a message.
        "/test.Echo/Refuse" => {
            echoed.headers_mut().insert("grpc-status", "9".parse().unwrap());
            echoed.headers_mut().insert("grpc-message", "not%20today".parse().unwrap());
            respond.send_response(echoed, true).unwrap();
        }
        // A Stop that fails twice.
        "/viam.component.gantry.v1.GantryService/Stop"
            if shared.stops_failed.fetch_add(1, Ordering::Relaxed) < 2 =>
        {
            echoed.headers_mut().insert("grpc-status", "13".parse().unwrap());
            respond.send_response(echoed, true).unwrap();
        }
        // Whoever shows another token than the second one given out is refused.
        "/test.Auth/Check" if shown.is_none_or(|shown| shown != "Bearer token-2") => {
            echoed.headers_mut().insert("grpc-status", "16".parse().unwrap());
            respond.send_response(echoed, true).unwrap();
        }
        "/proto.rpc.v1.AuthService/Authenticate" => {
            let token = format!("token-{}", shared.logins.fetch_add(1, Ordering::Relaxed) + 1);
            respond_with(respond, echoed, message(&token), trailers);
        }
        "/viam.robot.v1.RobotService/ResourceNames" => {
            // One resource: rdk:component:arm/arm1.
            let name = b"\x0a\x1b\x0a\x03rdk\x12\x09component\x1a\x03arm\x22\x04arm1";
            respond_with(respond, echoed, super::framed(&name[..]), trailers);
        }
        // Never an answer: a Stop that hangs, a command that takes long.
        "/test.Echo/Hang"
        | "/viam.component.gripper.v1.GripperService/Stop"
        | "/viam.component.arm.v1.ArmService/MoveToJointPositions" => {
            if let Ok(reason) = std::future::poll_fn(|cx| respond.poll_reset(cx)).await {
                drop(sees.send(Seen::Reset(reason)));
            }
        }
        // An answer without end, in pieces of 16 KiB.
        "/test.Echo/Flood" => {
            let mut stream = respond.send_response(echoed, false).unwrap();
            while send(&mut stream, Bytes::from(vec![7; 1 << 14])).await.is_ok() {}
            drop(sees.send(Seen::Reset(h2::Reason::CANCEL)));
        }
        // One message, and no end to it until it is reset.
        "/test.Echo/Half" => {
            let mut stream = respond.send_response(echoed, false).unwrap();
            stream.send_data(Bytes::from_static(b"half"), false).unwrap();
            if let Ok(reason) = std::future::poll_fn(|cx| stream.poll_reset(cx)).await {
                drop(sees.send(Seen::Reset(reason)));
            }
        }
        // One message, then a reset.
        "/test.Echo/Reset" => {
            let mut stream = respond.send_response(echoed, false).unwrap();
            stream.send_data(Bytes::from_static(b"half"), false).unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            stream.send_reset(h2::Reason::ENHANCE_YOUR_CALM);
        }
        "/test.Echo/ResetAtOnce" => respond.send_reset(h2::Reason::REFUSED_STREAM),
        // Anything of Viam's: an empty message.
        _ => {
            if path == "/viam.component.servo.v1.ServoService/Stop" {
                tokio::time::sleep(SLOW_STOP).await;
            }
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            respond_with(respond, echoed, super::framed(&[]), trailers);
        }
    }
}

fn respond_with(
    mut respond: h2::server::SendResponse<Bytes>,
    head: Response<()>,
    message: Bytes,
    trailers: HeaderMap,
) {
    // The client may have gone.
    if let Ok(mut stream) = respond.send_response(head, false) {
        drop(stream.send_data(message, false));
        drop(stream.send_trailers(trailers));
    }
}

/// A message of which field 1 is this text, as it stands in a body.
pub fn message(text: &str) -> Bytes {
    super::framed(&[&[0x0A, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat())
}

/// Sends with regard to flow control.
pub async fn send(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), ()> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(Ok(room)) = room else { return Err(()) };
        let piece = data.split_to(room.min(data.len()));
        stream.send_data(piece, false).map_err(drop)?;
    }
    Ok(())
}

/// A client.
pub struct Client {
    sender: SendRequest<Bytes>,
    address: SocketAddr,
    cork: Arc<Cork>,
    _task: JoinSet<()>,
}

/// What keeps a client's bytes back, so that several calls leave in one segment.
#[derive(Debug, Default)]
struct Cork {
    is_in: AtomicBool,
    waiting: Mutex<Option<Waker>>,
}

/// A connection with a cork.
struct Corked {
    stream: TcpStream,
    cork: Arc<Cork>,
}

impl AsyncRead for Corked {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        *self.cork.waiting.lock().unwrap() = Some(cx.waker().clone());
        if self.cork.is_in.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A call under way.
pub struct Call {
    /// What comes back.
    pub answer: ResponseFuture,
    /// What is sent.
    pub stream: SendStream<Bytes>,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let cork = Arc::<Cork>::default();
        let corked = Corked { stream, cork: Arc::clone(&cork) };
        let (sender, connection) = h2::client::handshake(corked).await.unwrap();
        let mut task = JoinSet::new();
        task.spawn(async move { drop(connection.await) });
        Self { sender, address, cork, _task: task }
    }

    /// Keeps what is sent from now on back.
    pub fn cork(&self) {
        self.cork.is_in.store(true, Ordering::SeqCst);
    }

    /// Sends what was kept back in one go.
    pub fn uncork(&self) {
        self.cork.is_in.store(false, Ordering::SeqCst);
        if let Some(waiting) = self.cork.waiting.lock().unwrap().take() {
            waiting.wake();
        }
    }

    /// Begins a call.
    pub async fn begin(&mut self, path: &str, headers: &[(&'static str, &str)]) -> Call {
        let mut request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = self.sender.clone().ready().await.unwrap();
        let (answer, stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
        Call { answer, stream }
    }

    /// A whole call with one message.
    pub async fn call(&mut self, path: &str, headers: &[(&'static str, &str)], body: &[u8]) -> Answered {
        let mut call = self.begin(path, headers).await;
        call.stream.send_data(Bytes::copy_from_slice(body), true).unwrap();
        call.finish().await
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answered {
    /// Its messages.
    pub body: Vec<u8>,
    /// Its trailers, or the headers when there is nothing else.
    pub trailers: HeaderMap,
}

impl Answered {
    /// Status and message.
    pub fn status(&self) -> (&str, &str) {
        let text = |name: &str| self.trailers.get(name).map_or("", |value| value.to_str().unwrap());
        (text("grpc-status"), text("grpc-message"))
    }
}

impl Call {
    /// The head of the answer.
    pub async fn head(&mut self) -> (HeaderMap, RecvStream) {
        let answer = timeout(SOON, &mut self.answer).await.expect("no answer").expect("reset");
        let (parts, body) = answer.into_parts();
        assert_eq!(parts.status, 200);
        (parts.headers, body)
    }

    /// The whole answer.
    pub async fn finish(mut self) -> Answered {
        let (headers, body) = self.head().await;
        timeout(SOON, rest(headers, body)).await.expect("no end of the answer").expect("reset")
    }
}

/// The rest of an answer.
pub async fn rest(headers: HeaderMap, mut body: RecvStream) -> Result<Answered, h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    let trailers = body.trailers().await?.unwrap_or(headers);
    Ok(Answered { body: bytes, trailers })
}

/// Serves on a free port what `act` answers, over the front's own transport.
pub async fn front<F>(act: impl Fn(Request<tonic::body::Body>) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = Response<tonic::body::Body>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ending, end) = watch::channel(false);
    let act = Arc::new(act);
    let service = tower::service_fn(move |request| {
        let act = Arc::clone(&act);
        async move { Ok(act(request).await) }
    });
    let limits = crate::transport::Limits { connections: 64, ping_every: SOON };
    tokio::spawn(async move {
        let door = crate::transport::Door::Plain;
        crate::transport::serve(listener, door, service, limits, end).await;
        drop(ending);
    });
    address
}
