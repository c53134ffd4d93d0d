//! Calls through a real connection to an upstream that misbehaves as asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::{Address, HostPort, Trust};
use h2::Reason;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::call::{Over, Terms, UNREAD, pass_on};
use super::lane::{Keeper, Lane};
use super::peek::Replayed;
use super::route::Route;
use super::testing::{Backend, Client, SOON, Word, front, rest, send, serve};

const WINDOW: Duration = Duration::from_millis(400);

fn address(of: &Backend) -> Address {
    Address::Plain(HostPort { host: of.address.ip().to_string(), port: of.address.port() })
}

async fn lane_to(address: &Address) -> (Lane, Keeper) {
    let (lane, keeper) = Lane::keep(Route::new(address).unwrap(), WINDOW, "test", Arc::new(|| false));
    timeout(SOON, lane.open()).await.expect("the lane does not open");
    (lane, keeper)
}

/// A front that passes everything on.
async fn through(lane: &Lane, unread: Duration) -> Client {
    let lane = lane.clone();
    let front = front(move |request| {
        let lane = lane.clone();
        async move { pass_on(&lane, request.map(Replayed::untouched), Terms::default(), unread).await }
    });
    Client::connect(front.await).await
}

/// An upstream, a lane to it and a client of a front in between.
async fn setting() -> (Backend, Lane, Keeper, Client) {
    let backend = Backend::start().await;
    let (lane, keeper) = lane_to(&address(&backend)).await;
    let client = through(&lane, UNREAD).await;
    (backend, lane, keeper, client)
}

#[tokio::test]
async fn headers_messages_and_trailers_pass_as_they_are() {
    let (mut backend, _lane, _keeper, mut client) = setting().await;
    let sent = [
        ("x-text", "value"),
        ("x-text", "again"),
        ("x-data-bin", "AAEC"),
        ("grpc-timeout", "1234567u"),
        ("grpc-encoding", "zstd"),
        ("grpc-accept-encoding", "zstd,gzip"),
        ("viam-sid", "an id"),
        ("user-agent", "tester/1"),
    ];
    let mut call = client.begin("/test.Echo/Echo", &sent).await;
    let seen = backend.call().await;
    assert_eq!((seen.method().as_str(), seen.uri().path()), ("POST", "/test.Echo/Echo"));
    let expected = [("content-type", "application/grpc"), ("te", "trailers")].into_iter().chain(sent);
    let all: Vec<_> =
        seen.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(all, expected.collect::<Vec<_>>());

    // Both directions at once: an answer to each message before the next one is sent.
    let (headers, mut body) = call.head().await;
    let texts: Vec<_> = headers.get_all("x-text").iter().collect();
    assert_eq!(texts, ["value", "again"]);
    assert_eq!(headers["x-data-bin"], "AAEC");
    for message in ["one", "two", "three"] {
        call.stream.send_data(Bytes::from_static(message.as_bytes()), false).unwrap();
        let back = timeout(SOON, body.data()).await.unwrap().unwrap().unwrap();
        assert_eq!(back, message);
    }
    call.stream.send_data(Bytes::new(), true).unwrap();
    let answered = rest(headers, body).await.unwrap();
    assert_eq!(answered.status(), ("0", ""));
    assert_eq!(answered.trailers["x-trailer-bin"], "AAEC/w");
}

#[tokio::test]
async fn one_message_either_way_and_an_error_without_any() {
    let (_backend, _lane, _keeper, mut client) = setting().await;
    let answered = client.call("/test.Echo/Echo", &[], b"hello").await;
    assert_eq!((answered.body.as_slice(), answered.status()), (&b"hello"[..], ("0", "")));
    let answered = client.call("/test.Echo/Refuse", &[], b"hello").await;
    assert_eq!((answered.body.len(), answered.status()), (0, ("9", "not%20today")));
}

#[tokio::test]
async fn twenty_megabytes_pass_both_ways() {
    let (_backend, _lane, _keeper, mut client) = setting().await;
    let bytes: Bytes =
        (0..20 << 20_u32).map(|at: u32| at.to_le_bytes()[usize::from(at.is_multiple_of(3))]).collect();
    let mut call = client.begin("/test.Echo/Echo", &[]).await;
    let (headers, body) = call.head().await;
    let whole = bytes.clone();
    let mut stream = call.stream;
    let sending = tokio::spawn(async move {
        send(&mut stream, whole).await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
    });
    let answered = timeout(6 * SOON, rest(headers, body)).await.unwrap().unwrap();
    sending.await.unwrap();
    assert!(answered.body == bytes, "{} bytes came back", answered.body.len());
}

#[tokio::test]
async fn a_call_that_its_client_takes_back_is_taken_back_upstream() {
    let (mut backend, _lane, _keeper, mut client) = setting().await;
    for path in ["/test.Echo/Hang", "/test.Echo/Half", "/test.Echo/Echo"] {
        let mut call = client.begin(path, &[]).await;
        backend.call().await;
        let mut reading = None;
        if path != "/test.Echo/Hang" {
            reading = Some(call.head().await);
        }
        call.stream.send_reset(Reason::CANCEL);
        drop((call, reading));
        if path != "/test.Echo/Echo" {
            assert_eq!(backend.reset().await, Reason::CANCEL, "{path}");
        }
    }
    let answered = client.call("/test.Echo/Echo", &[], b"on").await;
    assert_eq!(answered.body, b"on");
}

#[tokio::test]
async fn a_client_that_dies_takes_its_calls_with_it() {
    let (mut backend, _lane, _keeper, mut client) = setting().await;
    let _call = client.begin("/test.Echo/Hang", &[]).await;
    backend.call().await;
    drop(client);
    assert_eq!(backend.reset().await, Reason::CANCEL);
}

#[tokio::test]
async fn the_upstreams_reset_reaches_the_client() {
    let (_backend, _lane, _keeper, mut client) = setting().await;
    let mut call = client.begin("/test.Echo/Reset", &[]).await;
    let (headers, body) = call.head().await;
    let error = timeout(SOON, rest(headers, body)).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));

    let answered = client.call("/test.Echo/ResetAtOnce", &[], b"x").await;
    let (status, message) = answered.status();
    assert_eq!(status, "14");
    assert!(message.contains("has%20reset%20the%20call"), "{message}");
}

#[tokio::test]
async fn an_answer_that_is_not_read_keeps_nobody_waiting_and_is_given_up() {
    let mut backend = Backend::start().await;
    let (lane, _keeper) = lane_to(&address(&backend)).await;
    let mut client = through(&lane, Duration::from_millis(300)).await;
    let mut other = through(&lane, UNREAD).await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        let mut call = client.begin("/test.Echo/Flood", &[]).await;
        let head = call.head().await;
        unread.push((call, head));
    }
    // None of the eight is read: the connection to the upstream is theirs, too.
    let answered = other.call("/test.Echo/Echo", &[], b"not held up").await;
    assert_eq!(answered.body, b"not held up");
    for _ in 0..8 {
        assert_eq!(backend.reset().await, Reason::CANCEL);
    }
}

#[tokio::test]
async fn an_answer_that_is_slow_in_coming_is_not_given_up() {
    let backend = Backend::start().await;
    let (lane, _keeper) = lane_to(&address(&backend)).await;
    let mut client = through(&lane, Duration::from_millis(100)).await;
    let mut call = client.begin("/test.Echo/Echo", &[]).await;
    let (headers, body) = call.head().await;
    let reading = tokio::spawn(rest(headers, body));
    sleep(Duration::from_millis(500)).await;
    call.stream.send_data(Bytes::from_static(b"late"), true).unwrap();
    let answered = timeout(SOON, reading).await.unwrap().unwrap().unwrap();
    assert_eq!((answered.body.as_slice(), answered.status()), (&b"late"[..], ("0", "")));
}

#[tokio::test]
async fn a_call_that_must_end_ends_with_its_reason_and_upstream_at_once() {
    let mut backend = Backend::start().await;
    let (lane, _keeper) = lane_to(&address(&backend)).await;
    let (ending, end) = watch::channel(false);
    let passing = lane.clone();
    let front = front(move |request| {
        let (lane, mut end) = (passing.clone(), end.clone());
        async move {
            let over: Over = Box::pin(async move {
                drop(end.wait_for(|ending| *ending).await);
                Status::invalid_argument("SESSION_EXPIRED")
            });
            let terms = Terms { over: Some(over), place: None };
            pass_on(&lane, request.map(Replayed::untouched), terms, UNREAD).await
        }
    });
    let mut client = Client::connect(front.await).await;
    let before = client.begin("/test.Echo/Hang", &[]).await;
    let mut during = client.begin("/test.Echo/Half", &[]).await;
    let (headers, body) = during.head().await;
    // This one is not read: its end must not wait for that.
    let mut unread = client.begin("/test.Echo/Flood", &[]).await;
    let _unread = unread.head().await;
    for _ in 0..3 {
        backend.call().await;
    }
    ending.send_replace(true);
    for _ in 0..3 {
        assert_eq!(backend.reset().await, Reason::CANCEL);
    }
    assert_eq!(before.finish().await.status(), ("3", "SESSION_EXPIRED"));
    let during = timeout(SOON, rest(headers, body)).await.unwrap().unwrap();
    assert_eq!((during.body.as_slice(), during.status()), (&b"half"[..], ("3", "SESSION_EXPIRED")));
}

#[tokio::test]
async fn a_killed_upstream_is_told_of_at_once_and_found_again() {
    let (mut backend, lane, _keeper, mut client) = setting().await;
    let waiting = client.begin("/test.Echo/Hang", &[]).await;
    let mut reading = client.begin("/test.Echo/Half", &[]).await;
    let (headers, body) = reading.head().await;
    backend.call().await;
    backend.call().await;
    let mut losses = lane.losses();
    losses.mark_unchanged();
    let place = backend.address;
    drop(backend);
    for answered in [waiting.finish().await, timeout(SOON, rest(headers, body)).await.unwrap().unwrap()] {
        let (status, message) = answered.status();
        assert_eq!(status, "14", "{message}");
        assert!(message.contains("is%20lost"), "{message}");
    }
    timeout(SOON, losses.changed()).await.expect("nobody was told").unwrap();
    let asked = Instant::now();
    let answered = client.call("/test.Echo/Echo", &[], b"x").await;
    assert_eq!(answered.status().0, "14");
    assert!(asked.elapsed() < WINDOW, "a call waited {:?} for an upstream that is gone", asked.elapsed());

    let _again = Backend::start_at(place, 1000).await;
    timeout(SOON, lane.open()).await.expect("it is not found again");
    assert_eq!(client.call("/test.Echo/Echo", &[], b"back").await.body, b"back");
}

#[tokio::test]
async fn a_hung_upstream_is_lost_after_its_window_and_not_open_before_it_answers() {
    let (mut backend, lane, _keeper, mut client) = setting().await;
    let waiting = client.begin("/test.Echo/Hang", &[]).await;
    backend.call().await;
    let mut losses = lane.losses();
    losses.mark_unchanged();
    let hung = Instant::now();
    backend.hang(true);
    let answered = waiting.finish().await;
    let took = hung.elapsed();
    assert_eq!(answered.status().0, "14");
    assert!(answered.status().1.contains("silent"), "{answered:?}");
    // A PING may just have been answered; after that it is silent for a window.
    assert!(took >= WINDOW / 2, "{took:?}");
    assert!(losses.has_changed().unwrap());
    // The kernel takes the connection in its name; that is no answer.
    sleep(3 * WINDOW).await;
    let answered = client.call("/test.Echo/Echo", &[], b"x").await;
    assert_eq!(answered.status().0, "14");
    assert!(answered.status().1.contains("PING"), "{answered:?}");
    backend.hang(false);
    timeout(SOON, lane.open()).await.expect("it is not found again");
    assert_eq!(client.call("/test.Echo/Echo", &[], b"back").await.body, b"back");
}

#[tokio::test]
async fn an_idle_connection_may_be_silent_unless_something_is_awaited() {
    let mut backend = Backend::start().await;
    let (lane, _keeper) = lane_to(&address(&backend)).await;
    let awaited = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asks = Arc::clone(&awaited);
    let asks = Arc::new(move || asks.load(std::sync::atomic::Ordering::Relaxed));
    let (watched, _watching) = Lane::keep(Route::new(&address(&backend)).unwrap(), WINDOW, "test", asks);
    timeout(SOON, watched.open()).await.unwrap();
    let (mut losses, mut lost) = (lane.losses(), watched.losses());
    losses.mark_unchanged();
    lost.mark_unchanged();
    backend.hang(true);
    sleep(3 * WINDOW).await;
    assert!(!losses.has_changed().unwrap() && !lost.has_changed().unwrap(), "an idle connection was lost");
    awaited.store(true, std::sync::atomic::Ordering::Relaxed);
    timeout(4 * WINDOW, lost.changed()).await.expect("it is silent while something goes on").unwrap();
    assert!(!losses.has_changed().unwrap(), "nobody awaits anything there");
    backend.hang(false);
    let mut client = through(&lane, UNREAD).await;
    assert_eq!(client.call("/test.Echo/Echo", &[], b"on").await.body, b"on");
    backend.so_far();
}

#[tokio::test]
async fn a_goodbye_is_no_loss_and_what_is_under_way_is_finished() {
    let (mut backend, lane, _keeper, mut client) = setting().await;
    let mut running = client.begin("/test.Echo/Echo", &[]).await;
    let (headers, body) = running.head().await;
    backend.call().await;
    let mut losses = lane.losses();
    losses.mark_unchanged();
    for round in 0..20 {
        backend.says(Word::Goodbye);
        let answered = client.call("/test.Echo/Echo", &[], b"next").await;
        assert_eq!((answered.body.as_slice(), answered.status().0), (&b"next"[..], "0"), "round {round}");
    }
    running.stream.send_data(Bytes::from_static(b"to its end"), true).unwrap();
    let answered = rest(headers, body).await.unwrap();
    assert_eq!((answered.body.as_slice(), answered.status().0), (&b"to its end"[..], "0"));
    assert!(!losses.has_changed().unwrap());
}

#[tokio::test]
async fn a_server_that_says_goodbye_and_is_gone_is_lost() {
    let (backend, lane, _keeper, mut client) = setting().await;
    let mut losses = lane.losses();
    losses.mark_unchanged();
    backend.says(Word::Goodbye);
    sleep(WINDOW / 8).await;
    drop(backend);
    timeout(SOON, losses.changed()).await.expect("nobody was told").unwrap();
    assert_eq!(client.call("/test.Echo/Echo", &[], b"x").await.status().0, "14");
}

#[tokio::test]
async fn a_server_that_is_asked_too_often_is_asked_less_and_not_lost() {
    let (backend, lane, _keeper, mut client) = setting().await;
    let mut losses = lane.losses();
    losses.mark_unchanged();
    for _ in 0..3 {
        backend.says(Word::TooManyPings);
        sleep(WINDOW / 8).await;
        assert_eq!(client.call("/test.Echo/Echo", &[], b"on").await.body, b"on");
    }
    assert!(!losses.has_changed().unwrap());
}

#[tokio::test]
async fn a_call_waits_for_room_but_not_for_ever_and_is_not_passed_on_later() {
    let mut backend = Backend::start_at("127.0.0.1:0".parse().unwrap(), 2).await;
    let (lane, _keeper) = lane_to(&address(&backend)).await;
    let mut client = through(&lane, UNREAD).await;
    let mut hanging = Vec::new();
    for _ in 0..2 {
        hanging.push(client.begin("/test.Echo/Hang", &[]).await);
        backend.call().await;
    }
    let begun = Instant::now();
    let refused = client.call("/test.Echo/Echo", &[], b"x").await;
    assert_eq!(refused.status().0, "14");
    assert!(refused.status().1.contains("room"), "{refused:?}");
    // A second, in which two PINGs were answered.
    assert!(begun.elapsed() < 2 * Duration::from_secs(1), "{:?}", begun.elapsed());
    drop(hanging.pop());
    backend.reset().await;
    assert_eq!(client.call("/test.Echo/Echo", &[], b"now").await.body, b"now");
    assert_eq!(backend.call().await.uri().path(), "/test.Echo/Echo");
    assert!(backend.so_far().is_empty(), "the refused call was passed on");
}

#[tokio::test]
async fn a_unix_socket_and_tls_lead_there_too() {
    let folder = std::env::temp_dir().join(format!("lanyard-upstream-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (sees, _seen) = mpsc::unbounded_channel();
    let (_stopped, stop) = watch::channel(false);

    let path = folder.join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (unix_sees, unix_stop) = (sees.clone(), stop.clone());
    tokio::spawn(async move {
        serve(listener.accept().await.unwrap().0, unix_sees, unix_stop, 10, Arc::default()).await
    });
    let (lane, _unix) = lane_to(&Address::Unix(path)).await;
    let mut client = through(&lane, UNREAD).await;
    assert_eq!(client.call("/test.Echo/Echo", &[], b"unix").await.body, b"unix");

    let made = rcgen::generate_simple_self_signed(["robot.example".to_owned()]).unwrap();
    let authority = folder.join("ca.pem");
    std::fs::write(&authority, made.cert.pem()).unwrap();
    let key =
        tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut tls = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(tls));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            let (acceptor, sees, stop) = (acceptor.clone(), sees.clone(), stop.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve(stream, sees, stop, 10, Arc::default()).await;
                }
            });
        }
    });
    let host = HostPort { host: "127.0.0.1".to_owned(), port };
    let trust = |name: &str| Trust { authority: Some(authority.clone()), server_name: name.to_owned() };
    let (lane, _tls) = lane_to(&Address::Tls(host.clone(), trust("robot.example"))).await;
    let mut client = through(&lane, UNREAD).await;
    assert_eq!(client.call("/test.Echo/Echo", &[], b"tls").await.body, b"tls");

    let route = Route::new(&Address::Tls(host, trust("another.example"))).unwrap();
    let error = match route.connect().await {
        Ok(_) => panic!("a certificate for another name was taken"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("certificate"), "{error}");
    std::fs::remove_dir_all(&folder).unwrap();
}
