//! Whatever is sent, the answer is JSON that says what is wrong, and nothing is opened.

use std::sync::LazyLock;

use axum::body::Body;
use http::{HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use super::super::amount::{Bandwidth, Size};
use super::super::node::Node;
use super::{NODE, PATIENCE, Scene, head, wanted};
use crate::transport::Connection;
use crate::tunnel::Protocol;

const LIST: &str = "/api/v3/session/tcp";

#[tokio::test]
async fn each_mistake_in_a_body_has_its_answer() {
    let scene = Scene::new().await;
    let with = |field: &str, value: &str| {
        let mut body = json!({ "destination": NODE, "path": { "Hops": 0 }, "target": { "Plain": "a:1" } });
        body[field] = serde_json::from_str(value).unwrap();
        body.to_string()
    };
    let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let cases = [
        (String::new(), 400, "EOF"),
        ("null".to_owned(), 422, "expected an object"),
        ("[]".to_owned(), 422, "expected an object"),
        ("\u{feff}{}".to_owned(), 400, "expected value"),
        (deep(10_000), 422, "invalid"),
        (with("target", &json!({ "Plain": 1 }).to_string()), 422, "target"),
        (with("path", &json!({ "Hops": -1 }).to_string()), 422, "path"),
        (with("path", &json!({ "Hops": 1.5 }).to_string()), 422, "path"),
        (with("path", &json!({ "Hops": 4 }).to_string()), 422, "at most 3 hops"),
        (
            with("path", &json!({ "IntermediatePath": [NODE, NODE, NODE, NODE] }).to_string()),
            422,
            "at most 3 hops",
        ),
        (with("path", &json!({ "IntermediatePath": ["robot"] }).to_string()), 422, "neither a peer id"),
        (with("path", "null"), 422, "missing field `path`"),
        (with("destination", r#""0x1234""#), 422, "neither a peer id"),
        (with("target", &json!({ "Service": -1 }).to_string()), 422, "target"),
        (with("target", &json!({ "Service": 4_294_967_296_u64 }).to_string()), 422, "target"),
        (with("target", &json!({ "Service": 7 }).to_string()), 422, "service number 7"),
        (with("target", &json!({ "Sealed": "AAEC" }).to_string()), 422, "Sealed is for the key of a node"),
        (with("target", &json!({ "Sealed": "?" }).to_string()), 422, "base 64"),
        (with("target", &json!({ "Plain": "a" }).to_string()), 422, "missing port delimiter"),
        (with("target", &json!({ "Plain": "a:b" }).to_string()), 422, "must be host:port"),
        (with("target", &json!({ "Plain": ":1" }).to_string()), 422, "must be host:port"),
        (with("target", &json!({ "Plain": "::1:1" }).to_string()), 422, "must be host:port"),
        (with("target", &json!({ "Plain": "a\n:1" }).to_string()), 422, "printable"),
        (with("target", &json!({ "Plain": "a".repeat(300) + ":1" }).to_string()), 422, "printable"),
        (with("target", &json!({ "Plain": "169.254.169.254:80" }).to_string()), 422, "denied target address"),
        (with("listenHost", r#""[::1]""#), 422, "no place to listen at"),
        (with("listenHost", r#""0.0.0.0:10000""#), 422, "listen_hosts"),
        (with("listenHost", r#""127.0.0.1:22""#), 422, "computer's own"),
        (with("listenHost", "1"), 422, "listenHost"),
        (with("capabilities", r#""Segmentation""#), 422, "capabilities"),
        (with("capabilities", "[1]"), 400, "capabilities"),
        (with("responseBuffer", r#""much""#), 422, "responseBuffer: must be like"),
        (with("maxSurbUpstream", r#""2 MB""#), 422, "maxSurbUpstream: must be like"),
        (wanted("a:1", None).replace('}', ",}"), 400, "Failed to parse the request body as JSON"),
        (wanted("a:1", None) + "x", 400, "trailing characters"),
        (
            format!("{}{}", wanted("a:1", None).trim_end_matches('}'), r#"},"path":{"Hops":0}}"#),
            422,
            "duplicate field",
        ),
    ];
    for (body, code, error) in cases {
        let answer = scene.post(LIST, &body).await.error();
        assert_eq!(answer.0, code, "{body}: {answer:?}");
        assert!(answer.2.contains(error), "{body}: {answer:?}");
    }
    // Unknown fields are passed over, however deep.
    let mut body = wanted("a:1", None);
    body.truncate(body.len() - 1);
    let deep = format!(r#"{body},"more":{}}}"#, deep(100));
    assert_eq!(scene.post(LIST, &deep).await.code, 200);
    assert_eq!(scene.tunnels.list(Protocol::Tcp).len(), 1);
}

#[tokio::test]
async fn a_body_has_an_end() {
    let scene = Scene::new().await;
    let long = |length: usize| wanted("a:1", None) + &" ".repeat(length - wanted("a:1", None).len());
    assert_eq!(scene.post(LIST, &long(64 * 1024)).await.code, 200);
    let answer = scene.post(LIST, &long(64 * 1024 + 1)).await.error();
    assert_eq!((answer.0, answer.1.as_str()), (413, "PAYLOAD_TOO_LARGE"));
    // Said to be long, and in pieces of which nobody says how many there are.
    let more = "Content-Type: application/json\r\n";
    let huge = head("POST", LIST, &scene.token, &format!("{more}Content-Length: 1000000000000\r\n"));
    let mut client = scene.client().await;
    client.0.write_all(huge.as_bytes()).await.unwrap();
    client.0.write_all(&vec![b' '; 65 * 1024]).await.unwrap();
    assert_eq!(client.answer(true).await.error().0, 413);
    let pieces = head("POST", LIST, &scene.token, &format!("{more}Transfer-Encoding: chunked\r\n"));
    let mut client = scene.client().await;
    client.0.write_all(pieces.as_bytes()).await.unwrap();
    for _ in 0..17 {
        client.0.write_all(b"1000\r\n").await.unwrap();
        client.0.write_all(&[b' '; 0x1000]).await.unwrap();
        client.0.write_all(b"\r\n").await.unwrap();
    }
    assert_eq!(client.answer(true).await.error().0, 413);
    // Bodies where none belongs are passed over.
    let odd = head("GET", LIST, &scene.token, "Content-Type: x\r\nContent-Length: 5\r\n") + "\0\x01{[\"";
    assert_eq!(scene.ask(&odd).await.code, 200);
}

#[tokio::test]
async fn nobody_gets_anywhere_by_a_path() {
    let scene = Scene::new().await;
    for (path, code) in [
        ("/api/v3/session/../../../../etc/passwd", 404),
        ("/api/v3/session/..%2f..%2fetc%2fpasswd", 400),
        ("/api/v3/session/%2e%2e/%2e%2e/1", 405),
        ("/api/v3/session/tcp%00", 400),
        ("/api/v3/session/%ff", 400),
        ("/api/v3/session/t%63p", 200),
        ("/api/v3/session/tcp?protocol=udp", 200),
        ("/api/v3/session/", 404),
        ("/api/v3/session", 404),
        ("/api/v5/session/tcp", 404),
        ("/API/v3/session/tcp", 404),
        ("/api/v3/session/config/tcp", 400),
        ("/api/v3/session/stats/tcp/::1/0", 404),
        ("/", 404),
        ("*", 404),
        ("/scalar/../api/v3/session/tcp", 404),
    ] {
        let answer = scene.get(path, &scene.token).await;
        assert_eq!(answer.code, code, "{path}: {answer:?}");
        if code >= 400 {
            answer.error();
        }
    }
    for (path, code) in [
        ("/api/v3/session/tcp/127.0.0.1%2f0/0", 400),
        ("/api/v3/session/tcp/127.0.0.1/+0", 400),
        ("/api/v3/session/tcp/127.0.0.1/", 404),
        ("/api/v3/session/tcp/[::1]/1", 400),
        ("/api/v3/session/tcp/127.1/1", 400),
        ("/api/v3/session/tcp/%ff/1", 400),
        ("/api/v3/session/config/127.0.0.1/1", 400),
    ] {
        let answer = scene.delete(path).await.error();
        assert_eq!(answer.0, code, "{path}: {answer:?}");
    }
}

/// One API for all cases, which are many.
struct Bench {
    runtime: Runtime,
    scene: Scene,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let scene = runtime.block_on(Scene::new());
    Bench { runtime, scene }
});

impl Bench {
    /// Asks, and looks whether the answer is one that a client understands.
    fn ask(&self, mut request: Request<Body>) -> Response<Body> {
        let address = ([127, 0, 0, 1], 1).into();
        request.extensions_mut().insert(Connection::new(address, address));
        self.runtime.block_on(async {
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let response = self.scene.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let code = parts.status.as_u16();
            let known = [200, 204, 400, 401, 403, 404, 405, 406, 408, 409, 413, 415, 422, 429];
            assert!(known.contains(&code), "{method} {uri}: {code}");
            if code >= 400 && method != "HEAD" {
                let error: Value = serde_json::from_slice(&body).unwrap();
                assert!(error["status"].is_string() && error["error"].is_string(), "{error}");
            }
            // What was opened by chance must not fill the table.
            self.scene.tunnels.close_all().await;
            Response::from_parts(parts, Body::from(body))
        })
    }

    fn request(&self, method: &str, path: &str, body: Vec<u8>) -> Option<Request<Body>> {
        let request = Request::builder().method(method).uri(path);
        let request =
            request.header("x-auth-token", &self.scene.token).header("content-type", "application/json");
        request.body(Body::from(body)).ok()
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "(127\\.0\\.0\\.1|::1|localhost|:|[0-9]{1,5}){1,3}".prop_map(Value::from),
        Just(json!({ "Hops": 0 })),
        Just(json!({ "Plain": "a:1" })),
        Just(json!(NODE)),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("Hops|Plain|Sealed|Service|IntermediatePath|.{0,3}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let fields = "destination|path|forwardPath|returnPath|target|listenHost|capabilities|responseBuffer|maxSurbUpstream|.{0,4}";
    let mixed = proptest::collection::btree_map(fields, any_json(), 0..8).prop_map(|changes| {
        let mut body: Value = serde_json::from_str(&wanted("a:1", None)).unwrap();
        for (field, value) in changes {
            body[field] = value;
        }
        body.to_string().into_bytes()
    });
    let broken = (any::<proptest::sample::Index>(), any::<u8>()).prop_map(|(place, byte)| {
        let mut body = wanted("a:1", Some("127.0.0.1:0")).into_bytes();
        let place = place.index(body.len());
        body[place] = byte;
        body
    });
    prop_oneof![mixed, broken, proptest::collection::vec(any::<u8>(), 0..256)]
}

fn any_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("api".to_owned()),
        Just("v3".to_owned()),
        Just("session".to_owned()),
        "(config|stats|tcp|UDP|0|127\\.0\\.0\\.1|%3a%3a1|65536)",
        "(%[0-9a-f]{2}){0,4}",
        "[!-~]{0,8}",
    ];
    let whole =
        proptest::collection::vec(part.clone(), 0..8).prop_map(|parts| format!("/{}", parts.join("/")));
    let below = proptest::collection::vec(part, 0..5)
        .prop_map(|parts| format!("/api/v4/session/{}", parts.join("/")));
    prop_oneof![whole, below]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_body_is_answered_in_json(body in any_request(), version in 3..=4_u8, config: bool) {
        let rest = if config { "config/0123456789abcdef0123456789abcdef" } else { "tcp" };
        let path = format!("/api/v{version}/session/{rest}");
        if let Some(request) = BENCH.request("POST", &path, body) {
            BENCH.ask(request);
        }
    }

    #[test]
    fn any_path_is_answered_in_json(path in any_path(), method in "GET|HEAD|POST|DELETE|PUT|OPTIONS|X") {
        if let Some(request) = BENCH.request(&method, &path, Vec::new()) {
            BENCH.ask(request);
        }
    }

    #[test]
    fn any_header_is_answered_in_json(
        name in "accept|authorization|x-auth-token|content-type|content-length|origin|host|access-control-request-method",
        values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 1..3),
        method in "GET|POST|OPTIONS",
    ) {
        let mut request = BENCH.request(&method, LIST, wanted("a:1", None).into_bytes()).unwrap();
        request.headers_mut().remove(&name);
        for value in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                request.headers_mut().append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
            }
        }
        BENCH.ask(request);
    }

    #[test]
    fn texts_with_a_form_are_read_without_harm(text: String) {
        drop((Node::try_from(text.clone()), Size::try_from(text.clone()), Bandwidth::try_from(text.clone())));
        drop(super::super::listen::place(Some(&text), ([127, 0, 0, 1], 0).into()));
        let _ = super::super::wire::link(&text);
    }
}

/// What the transport itself refuses gets no JSON, and is in nobody's way.
#[tokio::test]
async fn what_is_no_http_is_shown_out() {
    let scene = Scene::new().await;
    for bytes in [
        // Fewer than 24 bytes would wait in the lobby.
        &b"\0\0\0\0\r\n\r\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"[..],
        b"GET\r\nHost: somebody-else\r\n\r\n",
        b"GET /api/v3/session/tcp HTTP/9.9\r\n\r\n",
        b"{\"destination\": 1, \"path\": 2}\r\n\r\n",
    ] {
        let mut client = scene.client().await;
        client.0.write_all(bytes).await.unwrap();
        let mut read = Vec::new();
        let closed = tokio::time::timeout(PATIENCE, client.0.read_to_end(&mut read)).await;
        assert!(closed.is_ok(), "{bytes:?} is left waiting");
    }
    assert_eq!(scene.post(LIST, &wanted("a:1", None)).await.code, 200);
}
