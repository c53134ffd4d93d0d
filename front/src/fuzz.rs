//! Arbitrary bytes as the bodies and headers of every call that the front answers itself: each is answered, soon, and
//! nobody else's session is harmed. Arbitrary HTTP/2 frames are thrown at the real process in `tests/tests/vcan/hostile.rs`.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use config::Config;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use proptest::collection::vec;
use proptest::prelude::{Strategy, any, prop_oneof};
use proptest::test_runner::TestRunner;
use prost::Message as _;
use shm_proto::{Nanos, Window};
use tokio::time::timeout;
use tonic::body::Body;
use tower::ServiceExt as _;

use crate::access::Access;
use crate::dispatch::Dispatch;
use crate::gate::Gate;
use crate::lanyard::Orders;
use crate::link::Link;
use crate::motion::{Motion, NoWire};
use crate::sessions::testing::Watcher;
use crate::sessions::{Entity, Peer, Rules, Sessions};
use crate::transport::Connection;
use crate::{native, proto};

/// Long against every answer, which comes from memory.
const SOON: Duration = Duration::from_secs(10);
const LONG: Window = Window::from_millis(60_000);
/// Calls: enough for each method to be called a hundred times.
const CASES: u32 = 4_000;

/// Every method there is, from the descriptors.
fn methods() -> Vec<String> {
    let files = prost_types::FileDescriptorSet::decode(proto::DESCRIPTORS).unwrap().file;
    let mut methods = Vec::new();
    for file in &files {
        for service in &file.service {
            let name = format!("/{}.{}/", file.package(), service.name());
            methods.extend(service.method.iter().map(|method| format!("{name}{}", method.name())));
        }
    }
    methods.push("/grpc.health.v1.Health/Check".to_owned());
    methods.push("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo".to_owned());
    methods.push("/nobody.knows/This".to_owned());
    methods
}

/// Bytes that nobody made on purpose, bytes after a right length, and what may look like a message with a name.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let framed = |message: Vec<u8>| {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, &message].concat()
    };
    // A motor that there is, a number, and a field that nobody knows.
    let named = (any::<[u8; 8]>(), vec(any::<u8>(), 0..40)).prop_map(|(number, rest)| {
        let length = u8::try_from(rest.len()).unwrap();
        [&b"\x0a\x04left\x11"[..], &number, &[0x7a, length], &rest].concat()
    });
    prop_oneof![
        1 => vec(any::<u8>(), 0..64),
        1 => vec(any::<u8>(), 0..64).prop_map(framed),
        4 => named.prop_map(framed),
        1 => any::<[u8; 5]>().prop_map(Vec::from),
    ]
}

fn text() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        any::<()>().prop_map(|()| None),
        "[ -~]{0,40}".prop_map(Some),
        any::<u128>().prop_map(|id| Some(uuid::Uuid::from_u128(id).to_string())),
    ]
}

#[test]
fn no_bytes_break_a_call() {
    // Nobody grants anything here; and nothing of the machine the test runs on is touched, which may be a robot.
    let example = include_str!("../../lanyard.example.toml")
        .replace("#grant_timeout = \"500ms\"", "grant_timeout = \"10ms\"")
        .replace("#socket = \"/run/lanyard", "socket = \"/nonexistent")
        .replace("#keys = \"/etc/lanyard", "keys = \"/nonexistent");
    assert_eq!(example.matches("/nonexistent/").count(), 2);
    let config = Arc::new(Config::parse(Path::new("lanyard.example.toml"), &example).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let watcher = Watcher::with_room(8);
    let link = Link::to(watcher.attachment.clone());
    let sessions = Arc::new(Sessions::new(Arc::clone(&link), Rules::relaxed()));
    let motion = Motion::start_over(Arc::clone(&config), &[Arc::new(NoWire)]);
    let orders = Arc::new(Orders::new(&config, Arc::clone(&link), Arc::clone(&motion)));
    let routes = native::routes(&config, &link, &sessions, &motion, &orders, &Arc::default());
    let (access, _) = Access::start(&config).unwrap();
    let front = Gate::new(Dispatch::new(routes, None), access);
    let address = ([127, 0, 0, 1], 1).into();
    let connection = Connection::new(address, address);
    let me = Entity::new("bystander");
    let bystander = sessions.open(&me, Peer::default(), LONG).unwrap().id;

    let methods = methods();
    assert!(methods.len() > 30, "{methods:?}");
    let calls = (0..methods.len(), bodies(), text(), text());
    let mut runner = TestRunner::new(proptest::test_runner::Config { cases: CASES, ..Default::default() });
    let outcome = runner.run(&calls, |(method, body, session, operation)| {
        // The supervisor is well.
        watcher.verdicts.beat(1, Nanos::now());
        let mut request = Request::post(&methods[method]).header("content-type", "application/grpc");
        for (name, value) in [("viam-sid", session), ("opid", operation)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                request = request.header(name, value);
            }
        }
        let mut request = request.body(Body::new(Full::from(body))).unwrap();
        request.extensions_mut().insert(Arc::clone(&connection));
        let front = front.clone();
        let answered = runtime.block_on(timeout(SOON, async move {
            let answer: Result<Response<Body>, Infallible> = front.oneshot(request).await;
            let (head, body) = answer.unwrap_or_else(|never| match never {}).into_parts();
            let trailers = body.collect().await.ok().and_then(|body| body.trailers().cloned());
            head.headers.contains_key("grpc-status")
                || trailers.is_some_and(|all| all.contains_key("grpc-status"))
        }));
        assert_eq!(answered, Ok(true), "{} is not answered", methods[method]);
        assert_eq!(sessions.beat(&me, bystander), Ok(()));
        Ok(())
    });
    if let Err(failed) = outcome {
        panic!("{failed}");
    }
}
